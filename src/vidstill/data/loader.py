"""Which clips make which batch, and the processes that read them."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from vidstill.data.dataset import TrainClips, sample_seed

Key = tuple[int, ...]  # epoch and index, and where sizes change the side of the clip


class EpochBatches(Sampler[list[Key]]):
    """Batches of (epoch, index) of one rank; set `epoch` and `start` (first batch) before iterating.

    The order is a function of (seed, epoch). The ranks together take the same videos at each step as one process
    with `world` times the batch would. The last, incomplete batch is dropped; a set smaller than one batch is
    repeated to fill it. With a `cycle` the batches have in turn so many clips of such a side, (epoch, index, side).
    """

    def __init__(
        self,
        length: int,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        cycle: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        if length < 1:
            raise ValueError("no training videos")
        self.length, self.batch, self.seed, self.rank, self.world = length, batch, seed, rank, world
        self.epoch = self.start = 0
        self.sides = [(), *((side,) for _, side in cycle or ())][bool(cycle) :]
        sizes = [clips * world for clips, _ in cycle or [(batch, 0)]]
        self.cuts = cut(length, sizes) or [(0, sizes[0], 0)]

    def __len__(self) -> int:
        return len(self.cuts)

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.random.RandomState(sample_seed(self.seed, self.epoch)).permutation(self.length)
        order = np.resize(order, max(self.length, self.cuts[0][1]))  # repeats where the set is smaller than one batch
        for first, clips, place in self.cuts[self.start :]:
            mine = order[first : first + clips][self.rank :: self.world]
            yield [(self.epoch, int(index), *self.sides[place]) for index in mine]


def cut(length: int, sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """`length` rows in whole batches of `sizes` in turn: (first, rows, place in the cycle)."""
    batches: list[tuple[int, int, int]] = []
    first = 0
    for place in itertools.cycle(range(len(sizes))):
        if first + sizes[place] > length:
            break
        batches.append((first, sizes[place], place))
        first += sizes[place]
    return batches


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
