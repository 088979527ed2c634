"""Where a run computes: devices, processes, precision, sharding and threads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from vidstill.config import ConfigError, Run

PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_fabric(run: Run) -> Fabric:
    """Devices, precision and strategy of the run; under torchrun its processes and nodes count instead.

    Raises ConfigError for devices that are not there.
    """
    t = run.train
    if "LOCAL_WORLD_SIZE" in os.environ:
        t.devices = int(os.environ["LOCAL_WORLD_SIZE"])
        t.nodes = int(os.environ["WORLD_SIZE"]) // t.devices
    gpus = torch.cuda.device_count()
    on_gpu = t.accelerator == "cuda" or (t.accelerator == "auto" and gpus > 0)
    if on_gpu and t.devices > gpus:
        raise ConfigError(
            f"train.devices {t.devices}: this machine has {gpus} GPU(s); set --train.devices {max(gpus, 1)}"
        )
    if t.precision == "fp16" and not (on_gpu or (t.accelerator != "cpu" and torch.backends.mps.is_available())):
        raise ConfigError("train.precision fp16 needs a GPU, and none is here: use --train.precision bf16 or fp32")
    processes = t.devices * t.nodes
    strategy: Any = t.strategy
    if strategy == "fsdp":
        strategy = ModelParallelStrategy(_shard, data_parallel_size=processes, tensor_parallel_size=1)
    elif strategy == "ddp" or processes > 1:
        strategy = DDPStrategy(broadcast_buffers=False)  # the loop shares statistics itself, under every strategy
    return Fabric(
        accelerator=t.accelerator,
        devices=t.devices,
        num_nodes=t.nodes,
        precision=PRECISION[t.precision],
        strategy=strategy,
    )


def _shard(objective: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """FSDP2: every stage on its own, the rest at the root."""
    for module in objective.modules():
        if module is not objective and getattr(module, "is_stage", False):
            fully_shard(module, mesh=mesh["data_parallel"])
    fully_shard(objective, mesh=mesh["data_parallel"])
    return objective


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many CPU threads inside the `with`; None: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
