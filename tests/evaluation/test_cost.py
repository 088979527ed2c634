"""Costs against formulas, known delays and known allocations."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidstill.config import Clip
from vidstill.data.isolated import Lost, isolated
from vidstill.evaluation import cost
from vidstill.evaluation.cost import (
    activations_mb,
    choose_threads,
    find_device,
    forward_times,
    gmacs,
    measure,
    median_interval,
)
from vidstill.models.registry import VideoModel, create_model


class Waits(VideoModel):
    """A network that takes as long, by a clock of its own, and as much memory as it is told."""

    clock = 0.0

    def __init__(self, seconds: list[float], megabytes: int = 0) -> None:
        super().__init__()
        self.seconds, self.megabytes, self.calls = seconds, megabytes, 0
        self.weight = torch.nn.Parameter(torch.ones(3, 5))
        self.register_buffer("mean", torch.zeros(10))

    def forward(self, clips: Tensor) -> Tensor:
        if not clips.is_meta:
            assert torch.is_inference_mode_enabled() and not self.training
            Waits.clock += self.seconds[min(self.calls, len(self.seconds) - 1)]
            torch.ones(self.megabytes, 250_000)
        self.calls += 1
        return clips.mean((2, 3, 4)) @ self.weight


@pytest.fixture(autouse=True)
def its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost.time, "perf_counter", lambda: Waits.clock)


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "WARM_UP", (1, 0.0))


def test_multiply_adds_of_a_focal_network_by_hand() -> None:
    """Layer by layer, with N tokens of all frames, kernels of 3 and 5 and an MLP of four times the width."""
    width, frames, side, classes, levels = 8, 4, 64, 7, 2
    total = 3 * width * 16 * frames * (side // 4) ** 2
    for stage, depth in enumerate((1, 1, 2, 1)):
        c, n = width * 2**stage, frames * (side // 4 // 2**stage) ** 2
        linear = c * (2 * c + levels + 1) + c * (c + levels + 1) + 3 * c * c + 8 * c * c
        total += depth * n * (linear + c * (9 + 25) + c * c * (3 + 5))
        total += 0 if stage == 3 else n // 4 * (4 * c * 2 * c)
    total += width * 8 * classes
    model = create_model("vfl_net", classes, width=width)
    assert gmacs(model, Clip(frames=frames, size=side)) == pytest.approx(total / 1e9, rel=1e-9)
    assert not any(parameter.is_meta for parameter in model.parameters()), "the model itself is untouched"


@pytest.mark.parametrize("name", ["vfl_net", "slowfast_shufflenetv2", "dualformer_tiny"])
def test_a_form_for_inference_counts_the_same(name: str) -> None:
    options = {"vfl_net": {"width": 8}, "slowfast_shufflenetv2": {"width": 0.25}}.get(name, {})
    model, clip = create_model(name, 5, **options), Clip(frames=8, size=32)
    plain = gmacs(model, clip)
    model.input = clip
    model.optimise_for_inference()
    with torch.no_grad():
        model(torch.zeros(1, 8, 32, 32, 3).permute(0, 4, 1, 2, 3))
    assert gmacs(model, clip) == plain > 0


def test_the_time_is_the_median_after_the_warm_up(no_warm_up: None) -> None:
    found = measure(lambda: Waits([0.2, 0.03, 0.01, 0.02, 0.05, 0.04]), frames=2, size=8, repeats=5, threads=1)
    assert found.ms == pytest.approx(30)
    assert (found.ms_low, found.ms_high) == pytest.approx((10, 50))
    assert (found.parameters, found.frames, found.size) == (15, 2, 8)
    assert found.weights_mb == pytest.approx(25 * 4e-6)
    assert found.gmacs == pytest.approx(15e-9)
    assert found.threads == 1 and found.one_thread_ms is None


class Scales(Waits):
    """Takes as long as is said for its number of threads."""

    def __init__(self, by_threads: dict[int, float]) -> None:
        super().__init__([0.0])
        self.by_threads, self.asked = by_threads, [0] * 9

    def forward(self, clips: Tensor) -> Tensor:
        Waits.clock += self.by_threads[torch.get_num_threads()]
        self.asked[torch.get_num_threads()] += 1
        return clips.mean((2, 3, 4)) @ self.weight


@pytest.mark.parametrize(("by_threads", "chosen"), [
    ({1: 0.0053, 2: 0.688, 4: 0.688}, 1),  # threads that wait for each other on a busy machine
    ({1: 1.0, 2: 0.55, 4: 0.30}, 4),
    ({1: 1.0, 2: 0.55, 4: 0.54}, 2),  # not worth it
    ({1: 1.0, 2: 0.95, 4: 0.1}, 1),
    ({1: 9.0, 2: 5.0, 4: 3.0}, 4),
])  # fmt: skip
def test_as_many_threads_as_pay(four_threads: None, by_threads: dict[int, float], chosen: int) -> None:
    model = Scales(by_threads)
    assert choose_threads(lambda: model(torch.zeros(1, 3, 1, 2, 2))) == chosen
    assert torch.get_num_threads() == 4, "the caller's number stays"
    assert sum(model.asked) <= 12
    if max(by_threads.values()) >= 1:
        assert max(model.asked) <= 4 and model.asked[1] == 2, "long passes are run once to warm up and once to count"


def test_one_thread_is_not_measured_where_there_is_no_other() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert choose_threads(lambda: pytest.fail("nothing to choose")) == 1
    finally:
        torch.set_num_threads(before)


def test_time_is_that_of_the_chosen_threads_with_one_thread_beside_it(four_threads: None, no_warm_up: None) -> None:
    slow = {1: 0.0053, 2: 0.688, 4: 0.688}
    found = measure(lambda: Scales(slow), frames=2, size=8, repeats=3)
    assert (found.threads, found.one_thread_ms) == (1, None) and found.ms == pytest.approx(5.3)
    asked = measure(lambda: Scales(slow), frames=2, size=8, repeats=3, threads=2)
    assert (asked.threads, asked.ms, asked.one_thread_ms) == (2, pytest.approx(688), pytest.approx(5.3))
    assert torch.get_num_threads() == 4


def test_the_share_of_a_core_is_told(no_warm_up: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that got a core half of the time."""
    monkeypatch.setattr(cost.time, "process_time", lambda: Waits.clock / 2)
    found = measure(lambda: Waits([0.01]), frames=2, size=8, repeats=3)
    assert found.cpu_share == pytest.approx(0.5)


@pytest.mark.parametrize(("count", "place"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (10, 1), (12, 2), (30, 9)])
def test_the_interval_of_a_median_is_the_textbooks(count: int, place: int) -> None:
    """The ranks that tables of the sign test give at 5%, two-sided."""
    values = list(np.random.default_rng(count).permutation(count))
    assert median_interval(values) == (place, count - 1 - place)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    """All orders of above and below, counted: 95% at least, and one rank further in no more."""
    for count in range(6, 13):
        low, _ = median_interval(list(range(count)))
        inside = {0: 0, 1: 0}
        for above in itertools.product((0, 1), repeat=count):
            for inner in inside:
                rank = int(low) + inner
                inside[inner] += rank < sum(above) < count - rank
        assert inside[0] / 2**count >= 0.95 > inside[1] / 2**count


def test_the_warm_up_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "WARM_UP", (2, 0.045))
    model = Waits([0.01]).eval()
    with torch.inference_mode():
        assert len(forward_times(model, torch.zeros(1, 3, 1, 2, 2), 3)) == 3
    assert 3 + 5 <= model.calls <= 3 + 6


def test_the_model_keeps_its_own_clip_where_none_is_asked_for(no_warm_up: None) -> None:
    model = Waits([0.0])
    model.input = Clip(frames=3, size=16)
    found = measure(lambda: model, frames=5, repeats=1)
    assert (found.frames, found.size) == (5, 16)
    assert found.ms == found.ms_low == found.ms_high


@pytest.mark.parametrize("device", ["tpu", "mps", "cuda:99", "nonsense"])
def test_devices_that_are_not_there(device: str) -> None:
    with pytest.raises(ValueError, match=device) as error:
        find_device(device)
    assert "\n" not in str(error.value)


def allocating(megabytes: int) -> float | None:
    return measure(lambda: Waits([0.0], megabytes), frames=1, size=8, repeats=1).memory_mb


@pytest.mark.slow
def test_memory_is_what_the_forward_needed() -> None:
    """64 and 256 MB in processes of their own, in a parent that holds more."""
    ballast = torch.ones(600, 250_000)
    found = {}
    for megabytes in (64, 256):
        ((_, outcome),) = isolated(allocating, [megabytes], [120.0], 1)
        assert not isinstance(outcome, Lost), outcome
        found[megabytes] = outcome
    assert 64 <= found[64] < 100
    assert found[256] - found[64] == pytest.approx(192, abs=8)
    assert ballast.numel()


class TwoLayers(nn.Module):
    """What autograd keeps of it can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.input = Clip(frames=2, size=8)
        self.first, self.second = nn.Linear(3 * 2 * 64, 100), nn.Linear(100, 10)

    def forward(self, clips: Tensor) -> Tensor:
        hidden = self.first(clips.flatten(1)).relu_()
        return self.second(hidden).exp()


def test_activations_are_what_the_backward_pass_wants() -> None:
    """Of two clips: the input (384), the hidden layer once, which relu and the second layer share (100), exp (10)."""
    model: Any = TwoLayers()
    assert activations_mb(model) == pytest.approx(4 * (384 + 100 + 10) / 1e6)
    assert activations_mb(model, Clip(frames=2, size=8)) == activations_mb(model)


@pytest.mark.parametrize("name", ["slowfast_ghostnet", "shufflenetv2_3d", "mobilenetv2_3d"])
def test_activations_are_kept_by_a_real_step_too(name: str) -> None:
    """Nearly the same bytes where values are computed, counted by address; attention keeps no scores there."""
    model, clip = create_model(name, 5), Clip(frames=8, size=64)
    weights = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in weights:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(torch.randn(2, 8, 64, 64, 3).permute(0, 4, 1, 2, 3))
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 2e6
    assert activations_mb(model, clip) == pytest.approx(real, rel=0.2)
