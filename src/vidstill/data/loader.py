"""Which clips make which batch, and the processes that read them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from vidstill.data.dataset import TrainClips, sample_seed


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) of one rank; set `epoch` and `start` (first batch) before iterating.

    The order is a function of (seed, epoch). The ranks together take the same videos at each step as one process
    with `world` times the batch would. The last, incomplete batch is dropped; a set smaller than one batch is
    repeated to fill it.
    """

    def __init__(self, length: int, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if length < 1:
            raise ValueError("no training videos")
        self.length, self.batch, self.seed, self.rank, self.world = length, batch, seed, rank, world
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return max(1, self.length // (self.batch * self.world))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.RandomState(sample_seed(self.seed, self.epoch)).permutation(self.length)
        whole = self.batch * self.world
        order = np.resize(order, len(self) * whole)  # repeats only where the set is smaller than one batch
        for step in range(self.start, len(self)):
            for_all = order[step * whole : (step + 1) * whole]
            yield [(self.epoch, int(index)) for index in for_all[self.rank :: self.world]]


def share_of_rank(n: int, rank: int, world: int, *, shuffle: bool, seed: int = 0, epoch: int = 0) -> list[int]:
    """The indices of one rank as PyTorch's DistributedSampler gives them, for runs that follow one that used it.

    All `n`, shuffled by torch from seed + epoch, are dealt out one by one; the first come again where they do not
    suffice. What ranks make of an unshuffled share is put together by taking one of each in turn, up to `n`.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + epoch)) if shuffle else torch.arange(n)
    padded = np.resize(order.numpy(), -(-n // world) * world)
    return [int(index) for index in padded[rank::world]]


def train_loader(
    clips: TrainClips, batches: EpochBatches, *, workers: int, start: str | None = None, pin: bool = False
) -> DataLoader[dict[str, Any]]:
    """Batches of `clips` in the order of `batches`, read by `workers` processes (0: in this one)."""
    return DataLoader(
        clips,
        batch_sampler=batches,
        collate_fn=_as_is,
        num_workers=workers,
        multiprocessing_context=start if workers else None,
        persistent_workers=workers > 0,
        worker_init_fn=start_worker,
        pin_memory=pin,
    )


def worker_count(wanted: int | None, *, processes: int, on_gpu: bool) -> tuple[int, str]:
    """Loader processes per training process, and why: on a GPU what the cores allow, on a CPU one, which overlaps
    reading with the step without taking the step's cores."""
    if wanted is not None:
        return wanted, "as set"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if on_gpu:
        return max(1, min(12, cores // processes)), f"{cores} cores for {processes} processes"
    return 1, "the step itself uses the cores"


def start_worker(worker: int) -> None:
    """One thread per loader process, as the processes are the parallelism. Ctrl-C reaches the whole group: it is the
    training process that decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _as_is(batch: Any) -> Any:
    """The data set makes whole batches itself."""
    return batch
