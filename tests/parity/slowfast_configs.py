"""What the released SlowFast configurations set, as far as goldens name one by its file instead of repeating it."""

from __future__ import annotations

import ast
import copy
import re
from typing import Any

Config = dict[str, Any]

LIGHT = {  # part of the file's name: model, width and groups on Kinetics, and on Jester
    "SHUFFLENETV2": ("SlowFastShuffleNetV2", (0.25, 1), (0.25, 1)),
    "SHUFFLENET": ("SlowFastShuffleNet", (1.0, 1), (2.0, 3)),
    "MOBILENETV2": ("SlowFastMoibleNetV2", (0.5, 1), (1.0, 1)),
    "GHOSTNET": ("SlowFastGhostNet", (1.0, 1), (1.0, 1)),
}
CLASSES = {"Jester": 27, "SSv2": 174, "Charades": 157}  # by the folder of the file; Kinetics-400 else
# Blocks of s4 that keep their kernel along time, of both pathways, by the end of a name with 101 layers.
TEMPORAL = {"_50_50": (6, 6), "_50_101": (6, 23), "_101_101": (23, 23)}
NONLOCAL = {"8x8": [[], [1, 3], [1, 3, 5], []], "16x8": [[], [], [6, 13, 20], []]}


def configuration(yaml: str, overrides: list[str]) -> Config:
    """The settings that a network is built from, in the form of the model goldens' `config`."""
    name = yaml.rsplit("/", 1)[-1]
    two = name.startswith("SLOWFAST")
    arch = name.split("_")[0].lower()
    depth = 101 if "R101" in name else 50
    light = next((LIGHT[part] for part in LIGHT if part in name), None)
    width, groups = light[2 if "Jester" in yaml else 1] if light else (2.0, 1)
    dual, slim = "DUAL" in name, "_4x16_" in name
    pathways = 2 if two else 1
    whole = 23 if depth == 101 and not two else 6
    s4 = next((s4 for part, s4 in TEMPORAL.items() if f"R101{part}" in name), (whole, whole))
    temporal = [[3] * pathways, [4] * pathways, list(s4[:pathways]), [3] * pathways]
    folder = next((part for part in CLASSES if part in yaml), None)
    places = NONLOCAL["16x8" if "16x8" in name else "8x8"] if "NLN" in name else [[]] * 4
    kernel = 7 if not slim and "NLN" not in name and depth == 50 else 5
    config: Config = {
        "MODEL.MODEL_NAME": light[0] if light else "SlowFastDualAttention" if dual else "SlowFast" if two else "ResNet",
        "MODEL.ARCH": "slowfast" if two else f"{arch}_nopool" if "NOPOOL" in name else arch,
        "MODEL.NUM_CLASSES": CLASSES[folder] if folder else 400,
        "MODEL.DROPOUT_RATE": 0.5,
        "MODEL.HEAD_ACT": "sigmoid" if folder == "Charades" else "softmax",
        "DATA.NUM_FRAMES": 16 if light else 64 if "16x8" in name else 32 if two else 4 if slim else 8,
        "DATA.CROP_SIZE": 224,
        "DATA.MEAN": [0.45] * 3,
        "MULTIGRID.SHORT_CYCLE": "multigrid" in name,
        "SLOWFAST": {
            "ALPHA": 8 if slim else 4,
            "BETA_INV": 8,
            "FUSION_CONV_CHANNEL_RATIO": 2,
            "FUSION_KERNEL_SZ": kernel,
            "WIDTH_MULTI": width,
            "GROUPS": groups,
        },
        "RESNET": {
            "TRANS_FUNC": "bottleneck_transform",
            "NUM_GROUPS": 1,
            "WIDTH_PER_GROUP": 64,
            "STRIDE_1X1": False,
            "DEPTH": depth,
            "NUM_BLOCK_TEMP_KERNEL": temporal,
            "SPATIAL_STRIDES": [[n] * pathways for n in (1, 2, 2, 2)],
            "SPATIAL_DILATIONS": [[1] * pathways] * 4,
        },
        "NONLOCAL": {
            "LOCATION": [[place, []] if two else [place] for place in places],
            "GROUP": [[1] * pathways] * 4,
            "INSTANTIATION": "dot_product" if two else "softmax",
            "POOL": [[[1, 2, 2]] * 2] * 4,
        },
    }
    config = copy.deepcopy(config)
    for key, text in zip(overrides[::2], overrides[1::2], strict=True):
        section, _, leaf = key.partition(".")
        value = ast.literal_eval(text) if re.match(r"[\[\d(TF.-]", text) else text
        if isinstance(config.get(section), dict):
            config[section][leaf] = value
        else:
            config[key] = value
    return config
