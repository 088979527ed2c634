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


_FOCAL, _DUAL, _FAST, _SLOW, _LIGHT = "8x224²", "32x224²", "32x224²", "8x224²", "16x112²"

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
    "slowfast_r50": Entry("slowfast", 34_566_488, 50.31, _FAST, "K400 77.0 at 256²"),
    "slowfast_r101": Entry("slowfast", 53_774_808, 81.55, _FAST, "K400 77.9 at 256²"),
    "slowfast_dual_r50": Entry("slowfast", 33_981_728, 105.66, _FAST, ""),
    "slow_r50": Entry("slowfast", 32_454_096, 41.74, _SLOW, "K400 74.8 at 256²"),
    "c2d_r50": Entry("slowfast", 24_327_632, 19.49, _SLOW, "K400 67.2 at 256²"),
    "i3d_r50": Entry("slowfast", 28_043_472, 28.41, _SLOW, "K400 73.5 at 256²"),
    "slowfast_shufflenet": Entry("light3d", 1_611_983, 0.37, _LIGHT, "K400 55.0 at width 2"),
    "slowfast_shufflenetv2": Entry("light3d", 1_949_727, 0.31, _LIGHT, "K400 38.5; 48.0 at width 2"),
    "slowfast_mobilenetv2": Entry("light3d", 3_120_418, 0.54, _LIGHT, "K400 48.1"),
    "slowfast_ghostnet": Entry("light3d", 4_651_628, 0.95, _LIGHT, "K400 46.0"),
    "shufflenet_3d": Entry("light3d", 1_329_304, 0.19, _LIGHT, "K400 51.1 at width 2; Jester 93.5"),
    "shufflenetv2_3d": Entry("light3d", 1_709_180, 0.19, _LIGHT, "K400 47.3; Jester 93.7 at width 2"),
    "mobilenetv2_3d": Entry("light3d", 2_866_448, 0.52, _LIGHT, "K400 38.5; Jester 94.6"),
}


def matching(pattern: str = "*") -> dict[str, Entry]:
    """Entries whose name matches a shell pattern, by name."""
    return {name: CATALOGUE[name] for name in sorted(fnmatch.filter(CATALOGUE, pattern))}
