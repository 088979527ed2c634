"""Parts of models against the models: sums, and the shapes that the features have."""

import pytest
import torch

from vidstill.evaluation.anatomy import MOST, parts
from vidstill.evaluation.cost import gmacs
from vidstill.models.catalogue import CATALOGUE
from vidstill.models.registry import create_model

QUICK = ("vfl_net", "slow_r50", "slowfast_shufflenetv2", "mobilenetv2_3d")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CATALOGUE]
)
def test_parts_together_are_the_model(name: str) -> None:
    model = create_model(name, 10, device="meta")
    found = parts(model)
    assert sum(part.parameters for part in found) == sum(one.numel() for one in model.parameters())
    assert sum(part.gmacs for part in found) == pytest.approx(gmacs(model), rel=1e-9)
    for part in found:
        if part.inside:
            assert sum(one.parameters for one in part.inside) <= part.parameters
            assert sum(one.gmacs for one in part.inside) == pytest.approx(part.gmacs, rel=0.01)
    assert found[-1].outputs == ((10,),), "the classifier comes last"


@pytest.mark.parametrize("name", ["vfl_net", "slowfast_shufflenetv2", "dualformer_tiny"])
def test_shapes_are_those_of_the_features(name: str) -> None:
    model = create_model(name, 5, device="meta").eval()
    clip = model.input.model_copy(update={"frames": 16, "size": 96})
    with torch.no_grad():
        features = model.forward_features(torch.empty(1, 3, 16, 96, 96, device="meta"))
    shapes = {shape for part in parts(model, clip) for shape in part.outputs}
    assert {tuple(value.shape[1:]) for value in features.values()} <= shapes


def test_alike_parts_stand_for_each_other() -> None:
    model = create_model("slow_r50", 10, device="meta")
    stage = next(part for part in parts(model) if part.path == "s3")
    assert [(one.path, one.count, one.last) for one in stage.inside] == [
        ("s3.pathway0_res0", 1, ""), ("s3.pathway0_res1", 3, "s3.pathway0_res3"),
    ]  # fmt: skip
    blocks = dict(model.named_modules())
    expected = sum(p.numel() for n in (1, 2, 3) for p in blocks[f"s3.pathway0_res{n}"].parameters())
    assert stage.inside[1].parameters == expected


def test_the_body_of_a_network_is_opened_and_many_parts_are_not() -> None:
    model = create_model("dualformer_tiny", 10, device="meta")
    found = parts(model, model.input.model_copy(update={"frames": 4, "size": 64}))
    assert len(found) > MOST and not any(part.inside for part in found)
    assert all(part.path.startswith(("backbone.", "cls_head")) for part in found)


def test_the_model_stays_as_it_is() -> None:
    model = create_model("vfl_net", 4, width=8, depths=[1, 1], focal_levels=[1, 1], focal_windows=[3, 3])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    parts(model)
    assert model.training and all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
