"""The rate of every iteration: properties that the goldens do not show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.config import Optim
from vidstill.training.schedules import Schedule


@given(
    kind=st.sampled_from(["cosine", "linear", "step"]),
    warmup=st.integers(0, 3),
    epochs=st.integers(4, 8),
    iterations=st.integers(1, 9),
    accumulate=st.integers(1, 4),
)
def test_rates_stay_positive_and_below_the_base(kind, warmup, epochs, iterations, accumulate) -> None:  # type: ignore[no-untyped-def]
    optim = Optim(schedule=kind, warmup_epochs=warmup, lr=0.1, warmup_lr=0.001, min_lr=0.001, reference_batch=None)
    schedule = Schedule(optim, epochs, iterations, 8, accumulate)
    rates = [schedule.rate(n) for n in range(epochs * iterations)]
    assert all(0 < rate <= 0.1 + 1e-12 for rate in rates)
    assert rates[0] == pytest.approx(0.001 if warmup else 0.1)
    for n in range(1, len(rates)):
        if n % iterations % accumulate:
            assert rates[n] == rates[n - 1], "the rate moves only at updates"


def test_warmup_prefix_starts_the_cosine_at_the_base() -> None:
    optim = Optim(warmup_epochs=2, warmup_prefix=True, reference_batch=None)
    schedule = Schedule(optim, epochs=10, iterations=5, batch=8)
    assert schedule.rate(11) == pytest.approx(0.1)
    assert schedule.rate(49) < 0.0025


def test_constant_stays() -> None:
    schedule = Schedule(Optim(schedule="constant", reference_batch=None, lr=0.3), 3, 4, 8)
    assert {schedule.rate(n) for n in range(12)} == {0.3}


def test_rates_follow_the_batch() -> None:
    small, large = (Schedule(Optim(), 10, 5, batch) for batch in (8, 64))
    assert large.rate(3) == pytest.approx(8 * small.rate(3))
