"""Every golden of $VIDSTILL_GOLDENS (default: tests/goldens), through the runner of its family and kind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dualformer_data
import dualformer_model
import dualformer_training
import focal_data
import focal_model
import focal_training
import numpy as np
import pytest
import slowfast_data
import slowfast_model
import slowfast_training
import slowfast_weights

FOLDER = Path(os.environ.get("VIDSTILL_GOLDENS") or Path(__file__).parents[1] / "goldens")

RUNNERS: dict[tuple[str, str], Callable[[dict[str, Any], Mapping[str, np.ndarray]], None]] = {
    kind if isinstance(kind, tuple) else ("focal", kind): run
    for module in (
        focal_model,
        focal_data,
        focal_training,
        dualformer_data,
        dualformer_model,
        dualformer_training,
        slowfast_data,
        slowfast_model,
        slowfast_training,
        slowfast_weights,
    )
    for kind, run in module.RUNNERS.items()
}

# Kinds whose part of the product is not built; shrinks to empty.
NOT_YET = {
    (family, kind)
    for family, kinds in {
        "gkd": "bmp det_aux_losses det_eval det_frame_sampling det_inference det_inference_fusion det_multisegment "
        "det_softnms det_ssl_augment det_train_step det_windows model rec_losses rec_train_step rec_transforms",
    }.items()
    for kind in kinds.split()
}


class Watched(Mapping[str, np.ndarray]):
    """The arrays of a golden, and which of them nobody looked at."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.unread = set(arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        self.unread.discard(name)
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __contains__(self, name: object) -> bool:  # asking is not looking
        return name in self.arrays


def goldens() -> list[Path]:
    """Files with a family and a kind; another .json is data that one of them names."""
    return [path for path in sorted(FOLDER.glob("*.json")) if {"family", "kind"} <= json.loads(path.read_text()).keys()]


@pytest.mark.parametrize("path", goldens(), ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    golden, arrays = read(path)
    key = golden["family"], golden["kind"]
    if key in NOT_YET:
        pytest.skip(f"{key[0]} {key[1]} is not built yet")
    check(golden, arrays)


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    kept = path.with_suffix(".npz")
    return json.loads(path.read_text()), dict(np.load(kept)) if kept.exists() else {}


def check(golden: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Through the runner of its family and kind, which must look at all arrays."""
    key = golden["family"], golden["kind"]
    assert key in RUNNERS, f"no runner for {key}"
    watched = Watched(arrays)
    RUNNERS[key](golden, watched)
    assert not watched.unread, f"nobody looked at {sorted(watched.unread)}"


def test_there_are_goldens_and_none_is_both_run_and_postponed() -> None:
    assert goldens(), f"no goldens in {FOLDER}"
    assert not RUNNERS.keys() & NOT_YET
