"""What a model costs: parameters, multiply-adds, time of a clip, memory."""

from __future__ import annotations

import copy
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vidstill.config import Clip
from vidstill.models.registry import VideoModel

WARM_UP = 2, 1.0  # passes and seconds, at least: caches fill, clocks rise, cuDNN chooses
MB = 1e6


@dataclass(frozen=True)
class Cost:
    """Of one clip at a time. MB are 10⁶ bytes."""

    parameters: int
    weights_mb: float  # parameters and buffers as they are stored
    gmacs: float
    ms: float | None  # median wall-clock time of a forward, and its quartiles; None on "meta"
    ms_low: float | None
    ms_high: float | None
    memory_mb: float | None  # most at once for weights, their packed copies and activations: of the process, of the GPU
    frames: int
    size: int
    threads: int  # of the CPU


def measure(
    make: Callable[[], VideoModel],
    *,
    device: str | torch.device = "cpu",
    frames: int | None = None,
    size: int | None = None,
    bf16: bool = False,
    repeats: int = 10,
) -> Cost:
    """The cost of the model that `make` builds or loads, in its form for inference (see `optimise_for_inference`).

    `frames` and `size` take the place of those of its `input`. On the device "meta" nothing is computed, time and
    memory stay unknown; elsewhere they are true in a fresh process only: in another one the heap is in use already.
    Raises ValueError for a device that is not there or a clip that the model cannot take.
    """
    place = find_device(device)
    before = _held(place)
    model = make()
    asked = {name: value for name, value in (("frames", frames), ("size", size)) if value is not None}
    model.input = model.input.model_copy(update=asked)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    milliseconds: list[float] | list[None] = [None] * 3
    if place.type != "meta":
        model.to(place).optimise_for_inference(bf16=bf16)
        # (B,3,T,H,W) as a view of (B,T,H,W,3), the layout in which clips reach a model
        clips = torch.randn(1, *_shape(model.input), 3, device=place).permute(0, 4, 1, 2, 3)
        with torch.inference_mode():
            times = [1e3 * seconds for seconds in forward_times(model, clips, repeats)]
        milliseconds = statistics.quantiles(times, n=4, method="inclusive") if repeats > 1 else times * 3
    after = _held(place)
    low, median, high = milliseconds
    return Cost(
        parameters=parameters,
        weights_mb=weights / MB,
        gmacs=gmacs(model),
        ms=median,
        ms_low=low,
        ms_high=high,
        memory_mb=None if before is None or after is None else (after - before) / MB,
        frames=model.input.frames,
        size=model.input.size,
        threads=torch.get_num_threads(),
    )


def gmacs(model: VideoModel, clip: Clip | None = None) -> float:
    """10⁹ multiply-adds of matrix products and convolutions for one clip, by default of the model's own `input`.

    Nothing is computed: a copy of the model without values runs. Normalisation and activations do not count.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ghost(torch.empty(1, 3, *_shape(clip or model.input), device="meta"))
    return counter.get_total_flops() / 2e9


def forward_times(model: VideoModel, clips: Tensor, repeats: int) -> list[float]:
    """Wall-clock seconds of each of `repeats` forwards, after a warm-up; a GPU is waited for."""
    wait = torch.cuda.synchronize if clips.is_cuda else lambda: None
    seconds: list[float] = []
    passes, least = WARM_UP
    while len(seconds) < passes or sum(seconds) < least:
        seconds.append(_time(model, clips, wait))
    return [_time(model, clips, wait) for _ in range(repeats)]


def find_device(device: str | torch.device) -> torch.device:
    """Raises ValueError for one that this machine does not have."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device {device!r}: take cpu, cuda, cuda:N or meta") from None
    if found.type not in ("cpu", "cuda", "meta"):
        raise ValueError(f"device {device!r} is not measured: take cpu, cuda, cuda:N or meta")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r}: this machine has {torch.cuda.device_count()} GPU(s); take cpu or another")
    return found


def processor(device: str | torch.device = "cpu") -> str:
    """The make of the GPU or CPU."""
    place = find_device(device)
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    if place.type == "meta":
        return "nothing computed"
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _time(model: VideoModel, clips: Tensor, wait: Callable[[], None]) -> float:
    wait()
    started = time.perf_counter()
    model(clips)
    wait()
    return time.perf_counter() - started


def _held(place: torch.device) -> int | None:
    """Most bytes held so far: by PyTorch on a GPU, by this process on a CPU; None where the system does not say."""
    if place.type == "meta":
        return None
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated(place)
    _load_kernels()
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage would count what the parent held before it started this process
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    if sys.platform != "darwin":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _load_kernels() -> None:
    """The code of PyTorch and oneDNN, some 30 MB, comes into memory when it is first run: that is no model's."""
    picture = torch.randn(1, 16, 8, 8)
    F.gelu(F.linear(F.layer_norm(F.conv2d(picture, torch.randn(16, 16, 3, 3)), [6]), torch.randn(4, 6)))


def _shape(clip: Clip) -> tuple[int, int, int]:
    return clip.frames, clip.size, clip.size
