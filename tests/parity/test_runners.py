"""Runners fail on wrong goldens, and read other goldens of their kind than those that are here."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_goldens
from test_goldens import NOT_YET, read

Golden = dict[str, Any]
Arrays = dict[str, np.ndarray]

FOLDER = Path(__file__).parents[1] / "goldens"

# Numbers, and words in lists, that describe a golden, or that change nothing in those that are here: what the input of
# a network already says, what matters in training only, decays of two steps.
IDLE = (
    "float32_vs_float64_max_abs", "f32_vs_f64", "stored_shape", "tolerance", "notes", "rules", "batches_columns",
    "outputs/arrays", "config_2d/", "/img_size", "config/num_frames", "config_video/num_frames", "layerscale_value",
    "drop_rate", "drop_path_rate", "dropout_ratio", "max_testing_views", "mixup_alpha", "cutmix_alpha", "switch_prob",
    "seed_of_torch_and_numpy", "optimizer/weight_decay", "decay_mult", "optimizer/betas", "WEIGHT_DECAY", "area_range",
    "ignored/", "NUM_SYNC_DEVICES", "overrides/", "train_views/*/pts_per_frame",
)  # fmt: skip
# Arrays that a runner is given: of one number more or less the figures, or the largest classes, can be the same.
GIVEN = {"scores", "scores2", "teacher_preds"}
# A run of these takes most of a second; every number of them is changed at night.
HEAVY = {
    "model", "inflate_2d", "modulator_maps", "train_step", "gradcam", "inflation", "tokenlabel", "views", "sampling",
    "pipeline", "optim_groups", "checkpoint_keys", "preprocess", "caffe2_names",
}  # fmt: skip


def built() -> dict[tuple[str, str], list[Path]]:
    """The goldens that have a runner, by family and kind, the smallest arrays first."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        golden = json.loads(path.read_text())
        key = golden.get("family"), golden.get("kind")
        if key in test_goldens.RUNNERS and key not in NOT_YET:
            found.setdefault(key, []).append(path)
    return {key: sorted(paths, key=lambda path: path.stat().st_size) for key, paths in found.items()}


def changes(golden: Golden) -> Iterator[tuple[str, Golden]]:
    """The golden with all values of one kind changed, for each kind: the same key of all cases, all entries of a list
    or of a large table. Values are numbers, and words in lists."""
    kinds: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for path in _values(golden):
        kinds.setdefault(_kind(golden, path), []).append(path)
    for kind, paths in kinds.items():
        name = "/".join(kind)
        if name.startswith("keys") or any(idle in name for idle in IDLE):  # a key of a wrong shape cannot be filled
            continue
        other = copy.deepcopy(golden)
        for path in paths:
            node: Any = other
            for part in path[:-1]:
                node = node[part]
            node[path[-1]] = _changed(node[path[-1]])
        yield name, other


def _values(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _values(value, (*path, key))
    elif isinstance(node, int | float) or (isinstance(node, str) and isinstance(path[-1], int)):
        yield path


def _kind(golden: Golden, path: tuple[Any, ...]) -> tuple[str, ...]:
    kind: list[str] = []
    node: Any = golden
    for part in path:
        kind.append("*" if isinstance(node, list) or _is_table(node, node[part]) else str(part))
        node = node[part]
    return tuple(kind)


def _is_table(node: Golden, value: Any) -> bool:
    """Whether a value is one of many, or has siblings of the same keys."""
    alike = [other for other in node.values() if isinstance(other, dict) and isinstance(value, dict)]
    return len(node) > 40 or sum(other.keys() == value.keys() for other in alike) > 1


def _changed(value: Any) -> Any:
    if isinstance(value, bool | str):
        return not value if isinstance(value, bool) else f"{value}x"
    return value + 1 + abs(value) // 4 if isinstance(value, int) else value + 0.1 * abs(value) + 0.01


def dented(arrays: Arrays, name: str) -> Arrays:
    """With one number of an array changed by a tenth of the largest."""
    array = arrays[name].copy()
    middle = array.size // 2
    if array.dtype.kind == "f":
        array.flat[middle] += 0.1 * np.abs(array).max() + 0.01
    else:
        array.flat[middle] ^= 64 if array.dtype == np.uint8 else 1
    return {**arrays, name: array}


def _fails(golden: Golden, arrays: Arrays) -> bool:
    try:
        test_goldens.check(golden, dict(arrays))
    except Exception:  # an input that cannot be, e.g. a crop of no size, is as good as a wrong result
        return True
    return False


@pytest.mark.parametrize("key", built(), ids=" ".join)
def test_a_wrong_array_fails(key: tuple[str, str]) -> None:
    golden, arrays = read(built()[key][0])
    names = [name for name in arrays if name not in GIVEN]
    for name in names[len(names) // 2 :][:1]:
        with pytest.raises(AssertionError):
            test_goldens.check(golden, dented(arrays, name))


@pytest.mark.parametrize(
    "key", [pytest.param(key, marks=pytest.mark.slow if key[1] in HEAVY else ()) for key in built()], ids=" ".join
)
def test_wrong_numbers_fail(key: tuple[str, str]) -> None:
    golden, arrays = read(built()[key][0])
    test_goldens.check(golden, dict(arrays))
    assert [name for name, other in changes(golden) if not _fails(other, arrays)] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", [*itertools.chain(*built().values())], ids=lambda path: path.stem)
def test_any_wrong_array_fails(path: Path) -> None:
    golden, arrays = read(path)
    names = [name for name in arrays if name not in GIVEN]
    assert [name for name in names if not _fails(golden, dented(arrays, name))] == []
