import pytest
import torch

from vidstill.models.registry import VideoModel, create_model, list_models


def test_names_and_wildcards() -> None:
    assert list_models("*focalnet_s*") == ["video_focalnet_small"]
    assert "vfl_net" in list_models()


@pytest.mark.parametrize(("name", "options", "message"), [
    ("video_focalnet_tinny", {}, r"'video_focalnet_tinny' \(did you mean video_focalnet_tiny\?\); known: c2d_"),
    ("vfl_net", {"embed_dim": 3}, "no option 'embed_dim'; allowed: width, depths"),
    ("vfl_net", {"focal_window": 3}, r"focal_window.*did you mean focal_windows\?"),
])  # fmt: skip
def test_wrong_names_and_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, **options)


def test_a_model_remembers_how_it_was_made() -> None:
    model = create_model("vfl_net", 5, width=8)
    assert (model.name, model.options, model.num_classes) == ("vfl_net", {"width": 8}, 5)
    assert isinstance(model, VideoModel) and model.input.frames == 8 and model.classes is None


def test_device() -> None:
    model = create_model("vfl_net", device="meta")
    assert model.head.weight.is_meta and "device" not in model.options
    with torch.device("meta"):
        assert create_model("vfl_net").head.weight.is_meta
