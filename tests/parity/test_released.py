"""Every configuration that was released builds, with the parameters that its authors' code counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from slowfast_configs import configuration
from slowfast_model import build, build_from_overrides

from vidstill.config import recipe_names, resolve
from vidstill.models.registry import create_model

# PySlowFast's files and those of its fork, with the millions of parameters that were counted on its code.
FILES = [
    ("C2D_8x8_R50", 24.328), ("C2D_8x8_R50_IN1K", 24.328), ("c2/C2D_NOPOOL_8x8_R50", 24.328),
    ("I3D_8x8_R50", 28.043), ("I3D_8x8_R101", 51.754), ("I3D_NLN_8x8_R50", 35.402), ("I3D_NLN_8x8_R50_IN1K", 35.402),
    ("SLOW_4x16_R50", 32.454), ("SLOW_8x8_R50", 32.454),
    ("SLOWFAST_4x16_R50", 34.480), ("SLOWFAST_8x8_R50", 34.566), ("c2/SLOWFAST_8x8_R50", 34.566),
    ("SLOWFAST_8x8_R50_stepwise", 34.566), ("SLOWFAST_8x8_R50_stepwise_multigrid", 34.566),
    ("SLOWFAST_8x8_R101_50_50", 53.775), ("SLOWFAST_8x8_R101_50_101", 53.914), ("SLOWFAST_8x8_R101_101_101", 62.827),
    ("SLOWFAST_16x8_R101_50_50", 53.775), ("SLOWFAST_NLN_16x8_R101_50_50", 60.080),
    ("SLOWFAST_DUAL_8x8_R50_stepwise_multigrid", 33.982),
]  # fmt: skip

# Networks of every width, at 400 classes unless others are named.
COUNTS: list[tuple[str, dict[str, Any], int]] = [
    ("slowfast_shufflenet", {"width": 1.0}, 1_611_983),
    ("slowfast_shufflenet", {"width": 1.5}, 3_347_782),
    ("slowfast_shufflenet", {"width": 2.0}, 5_704_089),
    ("slowfast_shufflenet", {"width": 2.0, "groups": 3}, 7_395_191),
    ("slowfast_shufflenetv2", {"width": 0.25}, 707_014),
    ("slowfast_shufflenetv2", {"width": 0.5}, 873_659),
    ("slowfast_shufflenetv2", {"width": 1.0}, 1_949_727),
    ("slowfast_shufflenetv2", {"width": 1.5}, 3_324_187),
    ("slowfast_shufflenetv2", {"width": 2.0}, 7_064_226),
    ("slowfast_mobilenetv2", {"width": 0.5}, 1_385_110),
    ("slowfast_mobilenetv2", {"width": 0.7}, 1_956_910),
    ("slowfast_mobilenetv2", {"width": 1.0}, 3_120_418),
    ("slowfast_mobilenetv2", {"width": 2.0}, 10_785_798),
    ("slowfast_ghostnet", {"width": 1.0}, 4_651_628),
    ("slowfast_ghostnet", {"width": 1.5}, 9_881_317),
    ("slowfast_ghostnet", {"width": 2.0}, 17_056_874),
    ("shufflenet_3d", {"width": 0.5, "groups": 3}, 449_572),
    ("shufflenet_3d", {"width": 1.0, "groups": 3}, 1_329_304),
    ("shufflenet_3d", {"width": 1.5, "groups": 3}, 2_636_716),
    ("shufflenet_3d", {"width": 2.0, "groups": 3}, 4_374_688),
    ("shufflenet_3d", {"width": 2.0, "groups": 1}, 4_192_250),
    ("shufflenetv2_3d", {"width": 0.25}, 624_656),
    ("shufflenetv2_3d", {"width": 0.5}, 771_664),
    ("shufflenetv2_3d", {"width": 1.0}, 1_709_180),
    ("shufflenetv2_3d", {"width": 1.5}, 2_956_880),
    ("shufflenetv2_3d", {"width": 2.0}, 6_230_016),
    ("mobilenetv2_3d", {"width": 0.2}, 707_910),
    ("mobilenetv2_3d", {"width": 0.45}, 1_143_634),
    ("mobilenetv2_3d", {"width": 0.7}, 1_793_742),
    ("mobilenetv2_3d", {"width": 1.0}, 2_866_448),
    ("vfl_net", {"num_classes": 101}, 22_214_723),
    ("video_focalnet_tiny", {}, 49_553_272),
    ("video_focalnet_small", {}, 88_735_168),
    ("video_focalnet_base", {}, 157_389_216),
    ("video_focalnet_base", {"num_classes": 600}, 157_594_216),
    ("video_focalnet_base", {"num_classes": 174}, 157_157_566),
    ("video_focalnet_base", {"num_classes": 48}, 157_028_416),
    ("video_focalnet_base", {"num_classes": 200}, 157_184_216),
    ("dualformer_tiny", {}, 21_972_560),
    ("dualformer_tiny", {"num_classes": 101, "video_size": (16, 224, 224)}, 21_807_141),
    ("dualformer_tiny", {"token_head": True}, 25_416_672),
    ("dualformer_small", {}, 49_215_664),
    ("dualformer_small", {"num_classes": 48}, 48_944_976),
    ("dualformer_small", {"num_classes": 51}, 48_947_283),
    ("dualformer_small", {"num_classes": 101}, 48_985_733),
    ("dualformer_base", {}, 87_247_632),
    ("dualformer_base", {"num_classes": 600}, 87_452_632),
]


@pytest.mark.parametrize(("file", "millions"), FILES)
def test_files_of_slowfast(file: str, millions: float) -> None:
    with torch.device("meta"):
        model = build_from_overrides(f"Kinetics/{file}.yaml", [])
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 3) == millions


@pytest.mark.parametrize(("name", "options", "count"), COUNTS)
def test_networks_of_every_width(name: str, options: dict[str, Any], count: int) -> None:
    model = create_model(name, device="meta", **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_build(name: str) -> None:
    model = resolve(name).model
    assert create_model(model.name, 7, device="meta", **model.options).num_classes == 7


@pytest.mark.parametrize("named", [("ResNet_nopool", "c2d"), ("ResNet", "c2d_nopool"), ("ResNet", "i3d_nopool")])
def test_no_pooling_along_time(named: tuple[str, str]) -> None:
    """The released file names a network that is not registered there, with the architecture that pools."""
    config = configuration("Kinetics/C2D_8x8_R50.yaml", ["MODEL.MODEL_NAME", named[0], "MODEL.ARCH", named[1]])
    with torch.device("meta"):
        features = build(config).forward_features(torch.empty(1, 3, 8, 64, 64))
        pooled = build_from_overrides("Kinetics/C2D_8x8_R50.yaml", []).forward_features(torch.empty(1, 3, 8, 64, 64))
    assert [features[f"s{n}.0"].shape[2] for n in (2, 3, 5)] == [8, 8, 8]
    assert [pooled[f"s{n}.0"].shape[2] for n in (2, 3, 5)] == [8, 4, 4]


def model_goldens() -> list[Path]:
    return [
        path
        for path in sorted((Path(__file__).parents[1] / "goldens").glob("slowfast_*.json"))
        if "yaml" in json.loads(path.read_text()).get("config", {})
    ]


@pytest.mark.parametrize("path", model_goldens(), ids=lambda path: path.stem)
def test_settings_behind_a_file_name(path: Path) -> None:
    """What a golden names by its file alone is what those say that repeat the file's settings."""
    config = json.loads(path.read_text())["config"]
    ours = configuration(config["yaml"], config["overrides"])
    light = config["MODEL.MODEL_NAME"] not in ("SlowFast", "SlowFastDualAttention", "ResNet")
    unread = {"MULTIGRID.SHORT_CYCLE", "DATA.CROP_SIZE", "RESNET", "NONLOCAL"} if light else set()  # by that network
    for key in ours.keys() - unread:
        if key != "SLOWFAST":
            expected = config[key]
            values = {name: expected[name] for name in ours[key]} if isinstance(expected, dict) else expected
            if key == "NONLOCAL" and not any(map(any, values["LOCATION"])):
                continue
            assert ours[key] == values, key
    if config["MODEL.ARCH"] == "slowfast":
        read = {"ALPHA", "BETA_INV", *(("WIDTH_MULTI", "GROUPS") if light else ("FUSION_KERNEL_SZ",))}
        assert {name: ours["SLOWFAST"][name] for name in read} == {name: config["SLOWFAST"][name] for name in read}
