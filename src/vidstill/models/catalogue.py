"""The table of models, readable without importing torch: what each name is, costs and was published with."""

from __future__ import annotations

import fnmatch
import re
from typing import NamedTuple


class Entry(NamedTuple):
    """Parameters and multiply-adds at 400 classes and the default input; a test holds them against the built model."""

    module: str  # of vidstill.models
    parameters: int
    gmacs: float
    input: str
    published: str

    def top1(self) -> dict[str, float]:
        """Published per cent by data set, of several the first."""
        return {name: float(share) for name, share in re.findall(r"(\w+) (\d+\.\d+)", self.published)}


_FOCAL, _DUAL = "8x224²", "32x224²"

CATALOGUE = {
    "dualformer_tiny": Entry("dualformer", 21_972_560, 59.86, _DUAL, "K400 79.5"),
    "dualformer_small": Entry(
        "dualformer", 49_215_664, 158.26, _DUAL, "K400 80.6; Diving48 81.8; HMDB51 76.4; UCF101 97.5"
    ),
    "dualformer_base": Entry("dualformer", 87_247_632, 267.39, _DUAL, "K400 81.1; K600 85.2"),
    "vfl_net": Entry("focal", 22_444_654, 27.14, _FOCAL, "UCF101 82.5 plain, 88.4 distilled; HMDB51 71.6, 82.7"),
    "video_focalnet_tiny": Entry("focal", 49_553_272, 63.00, _FOCAL, "K400 79.8"),
    "video_focalnet_small": Entry("focal", 88_735_168, 124.33, _FOCAL, "K400 81.4"),
    "video_focalnet_base": Entry("focal", 157_389_216, 220.65, _FOCAL, "K400 83.6; K600 86.7; SSv2 71.1"),
}


def matching(pattern: str = "*") -> dict[str, Entry]:
    """Entries whose name matches a shell pattern, by name."""
    return {name: CATALOGUE[name] for name in sorted(fnmatch.filter(CATALOGUE, pattern))}
