"""Divisions: even, reproducible, and no group in two parts."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.division import group_parts, stratified_parts

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60)


@given(LABELS, st.integers(2, 7), st.integers(0, 9))
def test_stratified_parts_are_even_in_every_class_and_in_all(labels: list[int], folds: int, seed: int) -> None:
    parts = stratified_parts([f"{n}.mp4" for n in range(len(labels))], labels, folds, seed)
    for chosen in [range(6), *([label] for label in range(6))]:
        sizes = Counter(part for part, label in zip(parts, labels, strict=True) if label in chosen)
        counts = [sizes[part] for part in range(folds)]
        assert max(counts) - min(counts) <= 1


@given(LABELS, st.integers(2, 7), st.randoms(use_true_random=False))
def test_stratified_parts_do_not_depend_on_the_order_of_files(
    labels: list[int], folds: int, rng: random.Random
) -> None:
    videos = [(f"{n}.mp4", label) for n, label in enumerate(labels)]
    shuffled = rng.sample(videos, len(videos))
    first = dict(zip(videos, stratified_parts(*zip(*videos, strict=True), folds, 0), strict=True))
    second = dict(zip(shuffled, stratified_parts(*zip(*shuffled, strict=True), folds, 0), strict=True))
    assert first == second


def test_seeds_give_other_divisions_and_one_is_pinned() -> None:
    names, labels = [f"{n:02}.mp4" for n in range(40)], [n % 4 for n in range(40)]
    divisions = [tuple(stratified_parts(names, labels, 5, seed)) for seed in range(10)]
    assert len(set(divisions)) == 10
    assert divisions[0][:10] == (
        0,
        4,
        0,
        1,
        1,
        1,
        2,
        0,
        1,
        0,
    )  # a machine or a release that divides otherwise would leak between runs


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=60), st.integers(2, 6))
def test_groups_are_never_divided_and_no_part_is_empty(videos: list[tuple[int, int]], folds: int) -> None:
    groups, labels = [f"g{group}" for group, _ in videos], [label for _, label in videos]
    if len(set(groups)) < folds:
        with pytest.raises(ValueError, match=f"{len(set(groups))} groups cannot make {folds} parts"):
            group_parts(groups, labels, folds, 0)
        return
    parts = group_parts(groups, labels, folds, 0)
    assert len(set(zip(groups, parts, strict=True))) == len(set(groups))
    assert set(parts) == set(range(folds))


def test_as_many_folds_as_groups_leaves_one_group_out() -> None:
    groups = [f"g{n % 7}" for n in range(50)]
    parts = group_parts(groups, [n % 3 for n in range(50)], 7, 0)
    assert len(set(zip(groups, parts, strict=True))) == 7


def test_equal_groups_are_dealt_evenly_in_every_class() -> None:
    groups = [f"g{g:02}" for g in range(25) for _ in range(8)]
    labels = [n // 2 for _ in range(25) for n in range(8)]
    parts = group_parts(groups, labels, 5, 3)
    assert set(Counter(zip(parts, labels, strict=True)).values()) == {10}
