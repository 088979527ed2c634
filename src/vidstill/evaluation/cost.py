"""What a model costs: parameters, multiply-adds, time of a clip, memory; and how many threads it wants."""

from __future__ import annotations

import copy
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from vidstill.config import Clip
from vidstill.devices import threads as threads_of
from vidstill.models.registry import VideoModel

WARM_UP = 2, 1.0  # passes and seconds, at least: caches fill, clocks rise, cuDNN chooses
TRIAL = 3, 1.0  # passes and seconds, at most, of one number of threads: their median decides, not how exact it is
WORTH = 0.9  # more threads are taken where they need no more than this share of the time of fewer
MB = 1e6


@dataclass(frozen=True)
class Cost:
    """Of one clip at a time. MB are 10⁶ bytes."""

    parameters: int
    weights_mb: float  # parameters and buffers as they are stored
    gmacs: float
    ms: float | None  # median wall-clock time of a forward, and its 95% interval; None on "meta"
    ms_low: float | None
    ms_high: float | None
    memory_mb: float | None  # most at once for weights, their packed copies and activations: of the process, of the GPU
    frames: int
    size: int
    threads: int  # of the CPU
    one_thread_ms: float | None = None  # where `threads` are more: whether they are worth it
    cpu_share: float | None = None  # CPU time over wall-clock time; below 1 a core was waited for. None on a GPU


def measure(
    make: Callable[[], VideoModel],
    *,
    device: str | torch.device = "cpu",
    frames: int | None = None,
    size: int | None = None,
    threads: int | None = None,
    bf16: bool = False,
    repeats: int = 10,
) -> Cost:
    """The cost of the model that `make` builds or loads, in its form for inference (see `optimise_for_inference`).

    `frames` and `size` take the place of those of its `input`; without `threads` as many are used as pay (see
    `choose_threads`). On the device "meta" nothing is computed, time and memory stay unknown; elsewhere they are true
    in a fresh process only: in another one the heap is in use already. Raises ValueError for a device that is not
    there or a clip that the model cannot take.
    """
    place = find_device(device)
    before = _held(place)
    model = make()
    asked = {name: value for name, value in (("frames", frames), ("size", size)) if value is not None}
    model.input = model.input.model_copy(update=asked)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    milliseconds: list[float] | list[None] = [None] * 3
    one_thread = share = None
    used = threads or torch.get_num_threads()
    if place.type != "meta":
        model.to(place).optimise_for_inference(bf16=bf16)
        # (B,3,T,H,W) as a view of (B,T,H,W,3), the layout in which clips reach a model
        clips = torch.randn(1, *_shape(model.input), 3, device=place).permute(0, 4, 1, 2, 3)
        with torch.inference_mode():
            if place.type == "cpu" and threads is None:
                used = choose_threads(lambda: model(clips))
            with threads_of(used):
                began, worked = time.perf_counter(), time.process_time()
                times = [1e3 * seconds for seconds in forward_times(model, clips, repeats)]
                wall, worked = time.perf_counter() - began, time.process_time() - worked
            if place.type == "cpu":
                share = worked / wall if wall > 0 else None
                one_thread = 1e3 * _trial(lambda: model(clips), 1) if used > 1 else None
        milliseconds = [statistics.median(times), *median_interval(times)]
    after = _held(place)
    median, low, high = milliseconds
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
        threads=used,
        one_thread_ms=one_thread,
        cpu_share=share,
    )


def choose_threads(run_once: Callable[[], object]) -> int:
    """The number of CPU threads on which `run_once`, a forward pass, is fastest here, up to PyTorch's own number.

    From one thread on it is doubled while that is worth it, with a few passes for each. Threads wait for each other
    at every layer, so that small networks want one, and where other work keeps the cores busy a second one can make a
    pass a hundred times as slow. PyTorch's number stays as it is: the caller sets it.
    """
    most, best = torch.get_num_threads(), 1
    numbers = sorted({min(2**n, most) for n in range(most.bit_length() + 1)})
    fastest = _trial(run_once, 1) if most > 1 else 0.0
    for number in numbers[1:]:
        seconds = _trial(run_once, number)
        if seconds > WORTH * fastest:
            break
        best, fastest = number, seconds
    return best


def threads_of_small(run_once: Callable[[], object]) -> int:
    """As `choose_threads` where a pass takes less than a fifth of a second on one thread, else PyTorch's own number: to
    measure a larger network costs more than it could save."""
    most = torch.get_num_threads()
    if most == 1:
        return 1
    with threads_of(1):
        began = time.perf_counter()
        run_once()
        small = time.perf_counter() - began < 0.2
    return choose_threads(run_once) if small else most


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median of what `values` are drawn from lies with 95%, whatever the distribution.

    The k-th smallest and the k-th largest value, with the largest k for which a median outside of both has a chance
    of 5% at most: fewer than k of n values lie below it with the chance of fewer than k heads in n throws. Below six
    values even their range, which is given, is less sure.
    """
    ordered, below, k = sorted(values), 0.0, 0
    while (below := below + math.comb(len(ordered), k) / 2 ** len(ordered)) <= 0.025:
        k += 1
    return ordered[max(k, 1) - 1], ordered[-max(k, 1)]


def machine_load() -> tuple[float, int] | None:
    """Processes that ran or wanted to in the last minute, and the cores of this one; None where no system tells."""
    if not hasattr(os, "getloadavg"):
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return os.getloadavg()[0], cores


def gmacs(model: VideoModel, clip: Clip | None = None) -> float:
    """10⁹ multiply-adds of matrix products and convolutions for one clip, by default of the model's own `input`.

    Nothing is computed: a copy of the model without values runs. Normalisation and activations do not count.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ghost(torch.empty(1, 3, *_shape(clip or model.input), device="meta"))
    return counter.get_total_flops() / 2e9


def activations_mb(model: VideoModel, clip: Clip | None = None) -> float:
    """10⁶ bytes of a clip (by default the model's `input`) that a step in fp32 keeps for the backward pass.

    Nothing is computed: a copy of the model without values runs, and what autograd saves is counted, views and in-place
    results once, weights not at all; attention as its fused kernels, which keep no scores. Two clips run, since batch
    norm wants more than one value.
    """
    ghost = copy.deepcopy(model).to("meta").train()
    weights = {_storage(each) for each in (*ghost.parameters(), *ghost.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that none is made anew under the number of another

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in weights:
            kept[_storage(tensor)] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _FusedAttention():
        ghost(torch.empty(2, *_shape(clip or model.input), 3, device="meta").permute(0, 4, 1, 2, 3))
    return sum(storage.nbytes() for storage in kept.values()) / 2 / MB


class _FusedAttention(TorchFunctionMode):
    """What fused attention keeps, where no values are: without them PyTorch takes the kernel that keeps the scores."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _Attention.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1]))  # sums of a softmax
        return out


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


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
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _trial(run_once: Callable[[], object], threads: int) -> float:
    """Median seconds of a few passes after the first, which starts the threads."""
    most, enough = TRIAL
    seconds: list[float] = []
    with threads_of(threads):
        run_once()
        while len(seconds) < most and sum(seconds) < enough:
            began = time.perf_counter()
            run_once()
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


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
