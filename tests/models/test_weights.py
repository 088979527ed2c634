"""Released files load without being executed; our own files give the same model back."""

import collections
import os
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch

import vidstill
from vidstill.config import Clip
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.weights import load_weights, read_tensors, save


def small(classes: int = 5, **options: object) -> VideoModel:
    return create_model("vfl_net", classes, **{"width": 8, **options})


def same(one: VideoModel, other: VideoModel) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "model_state"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes_come_off(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    source, target = small(), small()
    state = {prefix + key: value for key, value in source.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "x.pth")
    report = load_weights(target, tmp_path / "x.pth")
    assert same(source, target)
    assert len(report.loaded) == len(state)


def test_a_configuration_object_of_another_library_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The released Video-FocalNet files carry a yacs CfgNode; yacs need not be installed."""
    module = types.ModuleType("yacs.config")

    class CfgNode(dict):
        pass

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    source = small()
    torch.save({"model": source.state_dict(), "config": CfgNode(A=CfgNode(B=[1, 2]))}, tmp_path / "x.pth")
    monkeypatch.delitem(sys.modules, "yacs.config")
    monkeypatch.delitem(sys.modules, "yacs")
    target = small()
    load_weights(target, tmp_path / "x.pth")
    assert same(source, target)


def test_a_malicious_pickle_does_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    torch.save({"model": small().state_dict(), "config": Evil()}, tmp_path / "new.pth")
    torch.save({"model": Evil()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Evil()))
    for name in ("new", "old", "bare"):
        try:
            load_weights(small(), tmp_path / f"{name}.pth")
        except ValueError as error:
            assert f"{name}.pth" in str(error)
            assert "\n" not in str(error)
        assert not (tmp_path / "ran").exists()


def test_legacy_files_saved_on_a_gpu_load_on_a_cpu(shared_data: Path) -> None:
    for name, count in (("resnet20-12fca82f.th", 97), ("shufflenetv2.pth", 330)):
        content = read_tensors(shared_data / "weights" / name)
        state = content.get("state_dict", content)
        assert len(state) == count
        assert all(value.device.type == "cpu" for value in state.values())


def test_head_of_another_size(tmp_path: Path) -> None:
    torch.save(small(7).state_dict(), tmp_path / "x.pth")
    model = small(5)
    before = model.state_dict()["head.weight"].clone()
    with pytest.raises(ValueError, match='head="fresh"'):
        load_weights(model, tmp_path / "x.pth")
    report = load_weights(model, tmp_path / "x.pth", head="fresh")
    assert torch.equal(model.state_dict()["head.weight"], before)
    assert "head.weight" in report.kept


def test_the_tubelet_is_the_files(tmp_path: Path) -> None:
    source = small(tubelet_size=2)
    torch.save(source.state_dict(), tmp_path / "x.pth")
    target = small()
    load_weights(target, tmp_path / "x.pth")
    clips = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(source.eval()(clips), target.eval()(clips))


def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path: Path) -> None:
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for state in (
        {"conv.weight": torch.zeros(3)},
        {**small().state_dict(), "norm.weight": torch.zeros(3)},
        collections.OrderedDict(list(small().state_dict().items())[:40]),
    ):
        with pytest.raises(ValueError):
            load_weights(model, state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_saved_model_comes_back_whole(tmp_path: Path) -> None:
    model = small(2, depths=(1, 1), focal_levels=(2, 1), focal_windows=(3, 3))
    model.classes, model.input = ["a", "ü, b"], Clip(frames=3, size=40, seconds=1.5)
    save(model, tmp_path / "best", metrics={"top1": 0.5}, provenance={"run": "x"})
    for source in (tmp_path, tmp_path / "best.safetensors", tmp_path / "best.json"):
        again = vidstill.load(source)
        assert same(model, again)
        assert (again.classes, again.input, again.training) == (model.classes, model.input, False)


def test_files_that_are_not_models(tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").write_bytes(b"nonsense")
    for call in (
        lambda: vidstill.load(tmp_path),
        lambda: vidstill.load(tmp_path / "x.pth"),
        lambda: load_weights(small(), tmp_path / "best.safetensors"),
        lambda: load_weights(small(), tmp_path / "absent.pth"),
        lambda: load_weights(small(), "hf://too/short"),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert "\n" not in str(caught.value)
