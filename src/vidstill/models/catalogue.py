"""The tables of models, readable without importing torch: what each name is and costs, what was published with it."""

from __future__ import annotations

import csv
import fnmatch
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """A registered name. Parameters and 10⁹ multiply-adds at 400 classes and the default input."""

    module: str  # of vidstill.models
    parameters: int
    gmacs: float
    input: str


class Configuration(NamedTuple):
    """A shipped recipe's network as it is tested, which is what its published figure was measured with.

    The clip is that of the test: more pixels or frames than the recipe trains with where the figure has them.
    """

    model: str
    variant: str  # how it differs from what the name alone builds
    data: str  # a key of CLASSES
    frames: int
    size: int
    views: str  # clips × crops
    top1: float | None  # published per cent; None: released without a figure, or our own
    source: str  # of network and figure; empty: our own
    parameters: int
    gmacs: float
    training_gmacs: float  # of one clip of its training
    training_mb: float  # 10⁶ bytes that a step in fp32 keeps of one clip for the backward pass
    remark: str

    @property
    def clip(self) -> str:
        return f"{self.frames} × {self.size}²"

    @property
    def classes(self) -> str | None:
        """The class list in the order of the released file's outputs; None where nothing was released."""
        return LISTS.get(self.source, LISTS[""]).get(self.data)

    @property
    def figure(self) -> str:
        """The data set with the figure in the digits of its source."""
        return "" if self.top1 is None else f"{self.data} {f'{self.top1:.2f}'.removesuffix('0')}"


_FOCAL, _DUAL, _FAST, _SLOW, _LIGHT = "8x224²", "32x224²", "32x224²", "8x224²", "16x112²"

CATALOGUE = {
    "dualformer_tiny": Entry("dualformer", 21_972_560, 59.86, _DUAL),
    "dualformer_small": Entry("dualformer", 49_215_664, 158.26, _DUAL),
    "dualformer_base": Entry("dualformer", 87_247_632, 267.39, _DUAL),
    "vfl_net": Entry("focal", 22_444_654, 27.14, _FOCAL),
    "video_focalnet_tiny": Entry("focal", 49_553_272, 63.00, _FOCAL),
    "video_focalnet_small": Entry("focal", 88_735_168, 124.33, _FOCAL),
    "video_focalnet_base": Entry("focal", 157_389_216, 220.65, _FOCAL),
    "slowfast_r50": Entry("slowfast", 34_566_488, 50.31, _FAST),
    "slowfast_r101": Entry("slowfast", 53_774_808, 81.55, _FAST),
    "slowfast_dual_r50": Entry("slowfast", 33_981_728, 105.66, _FAST),
    "slow_r50": Entry("slowfast", 32_454_096, 41.74, _SLOW),
    "c2d_r50": Entry("slowfast", 24_327_632, 19.49, _SLOW),
    "i3d_r50": Entry("slowfast", 28_043_472, 28.41, _SLOW),
    "slowfast_shufflenet": Entry("light3d", 1_611_983, 0.370, _LIGHT),
    "slowfast_shufflenetv2": Entry("light3d", 1_949_727, 0.313, _LIGHT),
    "slowfast_mobilenetv2": Entry("light3d", 3_120_418, 0.545, _LIGHT),
    "slowfast_ghostnet": Entry("light3d", 4_651_628, 0.949, _LIGHT),
    "shufflenet_3d": Entry("light3d", 1_329_304, 0.188, _LIGHT),
    "shufflenetv2_3d": Entry("light3d", 1_709_180, 0.186, _LIGHT),
    "mobilenetv2_3d": Entry("light3d", 2_866_448, 0.519, _LIGHT),
    "tsm_efficientnet_lite0": Entry("shift", 3_883_408, 3.07, _SLOW),
    "tsm_efficientnet_lite1": Entry("shift", 4_648_080, 4.79, "8x240²"),
    "tsm_efficientnet_lite2": Entry("shift", 5_323_472, 6.87, "8x260²"),
    "tsm_mobilenetv2": Entry("shift", 2_736_272, 2.40, _SLOW),
}
CLASSES = {
    "K400": 400, "K600": 600, "SSv2": 174, "ActivityNet": 200, "Diving48": 48, "HMDB51": 51, "UCF101": 101, "UCF50": 50,
    "Jester": 27, "embedded": 8, "Hockey Fights": 2, "UT-Interaction": 6, "small folder": 10,
}  # fmt: skip
# Class lists of released files by data set, for sources that have another order under their name. That of DVFL-Net's
# HMDB51 files is not known.
LISTS = {
    "": {
        "K400": "kinetics400", "K600": "kinetics600", "SSv2": "ssv2", "ActivityNet": "activitynet200",
        "Diving48": "diving48", "HMDB51": "hmdb51", "UCF101": "ucf101", "UCF50": "ucf50",
        "Jester": "jester_alphabetical",
    },
    "arXiv 2507.12426": {"HMDB51": "hmdb51", "UCF101": "ucf101_dvfl", "UCF50": "ucf50"},
}  # fmt: skip
# Of the official training lists (UCF101, HMDB51: the first; K400, K600: about what is still to be had), else of the
# division that the recipe makes.
TRAINING_VIDEOS = {
    "K400": 240_000, "K600": 380_000, "SSv2": 168_913, "ActivityNet": 10_024, "Diving48": 15_027, "HMDB51": 3_570,
    "UCF101": 9_537, "UCF50": 5_300, "Jester": 118_562, "embedded": 480, "Hockey Fights": 800, "UT-Interaction": 65,
    "small folder": 100,
}  # fmt: skip


def matching(pattern: str = "*") -> dict[str, Entry]:
    """Entries whose name matches a shell pattern, by name."""
    return {name: CATALOGUE[name] for name in sorted(fnmatch.filter(CATALOGUE, pattern))}


def configurations(pattern: str = "*") -> dict[str, Configuration]:
    """Recipes whose name, or the name of whose model, matches a shell pattern, in the order of the table."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if any(fnmatch.filter([row["recipe"], row["model"]], pattern))]
    return {
        row["recipe"]: Configuration(
            row["model"], row["variant"], row["data"], int(row["frames"]), int(row["size"]), row["views"],
            float(row["top1"]) if row["top1"] else None, row["source"], int(row["parameters"]), float(row["gmacs"]),
            float(row["training_gmacs"]), float(row["training_mb"]), row["remark"],
        )
        for row in rows
    }  # fmt: skip
