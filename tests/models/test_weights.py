"""Released files load without being executed; our own files give the same model back."""

import collections
import json
import os
import pickle
import resource
import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    model.activation = "sigmoid"
    save(model, tmp_path / "best", metrics={"top1": 0.5}, provenance={"run": "x"})
    for source in (tmp_path, tmp_path / "best.safetensors", tmp_path / "best.json"):
        again = vidstill.load(source)
        assert same(model, again)
        assert (again.classes, again.input, again.training) == (model.classes, model.input, False)
        assert again.activation == "sigmoid"
    about = json.loads((tmp_path / "best.json").read_text())
    del about["activation"]
    (tmp_path / "best.json").write_text(json.dumps(about))
    assert vidstill.load(tmp_path).activation == "softmax"


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


def flat(model: VideoModel, **extra: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a 2-D FocalNet of that shape would hold."""
    state = {key: value for key, value in model.state_dict().items() if "_temporal" not in key}
    state |= {"head.weight": torch.zeros(1000, 64), "head.bias": torch.zeros(1000)}
    return {**state, **extra}


def test_a_2d_network_gives_what_is_spatial() -> None:
    source, target = small(depths=(2, 2, 6, 2)), small(tubelet_size=2)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    state = flat(source)
    with pytest.raises(ValueError, match='pass head="fresh"'):
        load_weights(target, state)
    report = load_weights(target, {"model": state}, head="fresh")
    after = target.state_dict()
    stem = "patch_embed.proj.weight"
    # A clip that stands still gives the tokens of the picture.
    picture = torch.randn(1, 3, 8, 8)
    tokens = torch.nn.functional.conv2d(picture, state[stem], state["patch_embed.proj.bias"], 4)
    still = torch.nn.functional.conv3d(
        picture.unsqueeze(2).expand(-1, -1, 2, -1, -1), after[stem], after["patch_embed.proj.bias"], (2, 4, 4)
    )
    torch.testing.assert_close(still[:, :, 0], tokens)
    for key in after.keys() - {stem}:
        spatial = "_temporal" not in key and not key.startswith("head.")
        assert torch.equal(after[key], state[key] if spatial else before[key]), key
        assert (key in report.loaded) == spatial and (key in report.kept) != spatial
    assert (target.head.bias == 0).all()
    assert set(report.resized) == {stem}
    assert {key.split(".mlp")[0].split(".norm")[0].split(".modulation")[0] for key in report.ignored} == {
        "head.weight", "head.bias", "layers.0.blocks.1", "layers.1.blocks.1", "layers.3.blocks.1",
        *(f"layers.2.blocks.{j}" for j in range(2, 6)),
    }  # fmt: skip
    lines = str(report).splitlines()
    assert lines[0].endswith(
        f"{len(report.loaded)} loaded, 1 resized, {len(report.kept)} kept, {len(report.ignored)} ignored"
    )
    assert "  kept head.weight: classifier of videos" in lines and len(lines) == 2 + 1 + len(report.kept) + len(
        report.ignored
    )


def test_a_2d_network_of_another_shape_is_an_error_that_names_the_keys() -> None:
    with pytest.raises(
        ValueError, match=r"have another shape: layers\.0\.blocks\.0\.modulation\.f\.weight is 20×8, .* 19×8"
    ):
        load_weights(small(), flat(small(focal_levels=(3, 3, 3, 3))), head="fresh")


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: state.pop("norm.weight"), r"lacks 1 weights of the model: norm\.weight"),
    (lambda state: state.update(more=torch.ones(1)), "has 1 weights that the model lacks: more"),
    (lambda state: state["norm.bias"].fill_(torch.nan), r"1 weights are not finite: norm\.bias"),
    (lambda state: state.clear(), "holds no weights"),
])  # fmt: skip
def test_errors_name_the_keys(change: Any, message: str) -> None:
    state = {key: value.clone() for key, value in small().state_dict().items()}
    change(state)
    with pytest.raises(ValueError, match=message):
        load_weights(small(), state)


def test_a_tubelet_that_was_asked_for_is_not_replaced() -> None:
    with pytest.raises(ValueError, match=r"trained with tubelet_size 1, the model has 2: build it with tubelet_size=1"):
        load_weights(small(tubelet_size=2), small().state_dict())
    target = small()
    report = load_weights(target, small(tubelet_size=2).state_dict())
    assert target.options["tubelet_size"] == 2 and "tubelet_size 2 taken from the file" in str(report)


def test_half_precision_and_safetensors_and_run_folders(tmp_path: Path) -> None:
    source, target = small(), small()
    halves = {key: value.half() for key, value in source.state_dict().items()}
    load_weights(target, halves)
    assert target.norm.weight.dtype == torch.float32
    torch.testing.assert_close(target.head.weight, source.head.weight, atol=1e-3, rtol=1e-2)
    save(source, tmp_path / "best")
    for place in (tmp_path, tmp_path / "best.safetensors"):
        target = small()
        assert len(load_weights(target, place).loaded) == len(source.state_dict()) and same(source, target)


def test_hub_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source, asked = small(), []
    torch.save(source.state_dict(), tmp_path / "x.pth")
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda repo, name: (asked.append((repo, name)), str(tmp_path / "x.pth"))[1]
    )
    target = small()
    load_weights(target, "hf://owner/repo/deep/x.pth")
    assert asked == [("owner/repo", "deep/x.pth")] and same(source, target)


def test_a_full_disk_leaves_the_model_that_was_there(tmp_path: Path) -> None:
    first, second = small(2), small(2)
    save(first, tmp_path / "best")
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        with pytest.raises(ValueError, match=r"best\.safetensors") as error:
            save(second, tmp_path / "best")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "\n" not in str(error.value)
    assert same(first, vidstill.load(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.json", "best.safetensors"]


def test_only_what_can_be_loaded_again_is_saved(tmp_path: Path) -> None:
    model = small(3)
    model.classes = ["a", "b"]
    with pytest.raises(ValueError, match="3 outputs but 2 class names"):
        save(model, tmp_path / "best")
    model.name = ""
    with pytest.raises(ValueError, match="made by create_model"):
        save(model, tmp_path / "best")


@pytest.mark.parametrize(("change", "message"), [
    (lambda about: about["architecture"].update(name="nope"), r"best\.json does not describe a model: no model 'nope'"),
    (
        lambda about: (about.pop("classes"), about.update(classes=None), about["architecture"].update(num_classes=9)),
        r"does not fit .*best\.json: head\.bias is 2 there, is 9 by its description; head\.weight",
    ),
    (lambda about: about.pop("input"), "does not describe a model"),
    (lambda about: about.update(activation="tanh"), "activation 'tanh': allowed are softmax, sigmoid, relu"),
    (lambda about: about["architecture"]["options"].update(widht=3), "no option 'widht'.*width"),
    (lambda about: about.update(classes="ab"), "class names are a list of texts, this is a str"),
    (lambda about: about.update(classes=[1, 2]), "the name of class 0 is a int"),
    (lambda about: about.update(classes=["a", ""]), "the name of class 1 is a text of 0 letters"),
    (lambda about: about.update(classes=["a", "b" * 10**6]), "the name of class 1 is a text of 1000000 letters"),
    (lambda about: about.update(classes=["a"] * 10**6), "the model has 2 outputs but 1000000 class names"),
    (lambda about: about.update(classes={"a": 1}), "class names are a list"),
    (lambda about: about["architecture"].update(num_classes=-1), "num_classes -1: give a whole number"),
    (lambda about: about["architecture"].update(num_classes=2.0), "num_classes 2.0: give a whole number"),
    (lambda about: about["architecture"].update(num_classes=10**12), "no number up to 100000"),
    (lambda about: about["architecture"].update(name="vfl_net" * 10**6), "an option of 7000000 letters"),
    (lambda about: about["architecture"].update(name=["vfl_net"]), "does not describe a model"),
    (lambda about: about.update(architecture=3), "does not describe a model"),
    (lambda about: about["architecture"]["options"].update(depths=[100_000] * 4), "larger network than the weights"),
    (lambda about: about["architecture"]["options"].update(depths=[10**9] * 4), "no number up to 100000"),
    (lambda about: about["architecture"]["options"].update(depths=[1] * 10**5), "more than 1000 options"),
    (lambda about: about["architecture"]["options"].update(focal_levels=[10**5] * 4), "larger network"),
    (lambda about: about["architecture"]["options"].update(width=10**5), r"does not fit"),
    (lambda about: about["architecture"]["options"].update(drop_rate=float("nan")), "no number up to"),
    (lambda about: about["architecture"]["options"].update(depths="1121"), "does not describe a model"),
    (lambda about: about["architecture"]["options"].update(device="cuda"), "does not describe a model"),
    (lambda about: about["input"].update(frames=10**9), "does not describe a model.*frames"),
    (lambda about: about["input"].update(frames=1024, size=2048), "pixels, more than"),
    (lambda about: about["input"].update(size=10**9), "does not describe a model.*size"),
    (lambda about: about["input"].update(std=[0, 0, 0]), "does not describe a model.*std"),
    (lambda about: about["input"].update(mean=[float("inf"), 0, 0]), "does not describe a model.*mean"),
    (lambda about: about["input"].update(seconds=float("nan")), "does not describe a model.*seconds"),
    (lambda about: about.update(input=None), "does not describe a model"),
])  # fmt: skip
def test_a_description_that_does_not_fit(tmp_path: Path, change: Any, message: str) -> None:
    model = small(2)
    model.classes = ["a", "b"]
    save(model, tmp_path / "best")
    about = json.loads((tmp_path / "best.json").read_text())
    change(about)
    (tmp_path / "best.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=message) as error:
        vidstill.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("key", "value", "message"), [
    ("head.weight", torch.nan, "1 weights are not finite: head.weight"),
    ("head.bias", -torch.inf, "1 weights are not finite: head.bias"),
    ("s1.bn.running_var", -1.0, r"1 variances are negative: s1\.pathway0_stem\.bn\.running_var"),
])  # fmt: skip
def test_weights_that_say_nothing_are_refused(tmp_path: Path, key: str, value: float, message: str) -> None:
    resnet = create_model("slow_r50", 2, width=8, depths=(1, 1, 1, 1))
    model = resnet if key.startswith("s1") else small(2)
    key = key.replace("s1.", "s1.pathway0_stem.")
    model.state_dict()[key].view(-1)[0] = value
    save(model, tmp_path / "best")
    with pytest.raises(ValueError, match=message) as error:
        vidstill.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.bool])
def test_weights_of_a_foreign_type_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    path = save(small(2), tmp_path / "best")
    state = safetensors.torch.load_file(path)
    safetensors.torch.save_file({**state, "head.bias": state["head.bias"].to(dtype)}, path)
    with pytest.raises(ValueError, match=r"weights of the types .*not of one floating type"):
        vidstill.load(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([10**5] * 4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest")
    model = small(2, depths=(1, 1), focal_levels=(2, 1), focal_windows=(3, 3))
    model.classes = ["a", "b"]
    save(model, folder / "best")
    return folder


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_description_says_it_loads_or_is_refused_in_one_line(honest: Path, data: st.DataObject) -> None:
    text = (honest / "best.json").read_text()
    about = json.loads(text)
    places = [(about, key) for key in about]
    places += [(about[section], key) for section in ("architecture", "input") for key in about[section]]
    places += [(about["architecture"]["options"], key) for key in (*about["architecture"]["options"], "mlp_ratio")]
    for place, key in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=2)):
        place[key] = data.draw(VALUES)
    (honest / "best.json").write_text(json.dumps(about))
    try:
        model = vidstill.load(honest)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    else:
        frames = min(model.input.frames, 4)
        with torch.no_grad():
            assert model(torch.zeros(1, 3, frames, 32, 32)).isfinite().all()
    finally:
        (honest / "best.json").write_text(text)


def test_a_description_that_never_ends(honest: Path, tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").write_bytes((honest / "best.safetensors").read_bytes())
    for text in ("[" * 10**5, "{}" + " " * (17 << 20), "[1, 2]", "3", "", '{"architecture": ' * 5000):
        (tmp_path / "best.json").write_text(text)
        with pytest.raises(ValueError, match=r"best\.json does not describe a model") as error:
            vidstill.load(tmp_path)
        assert "\n" not in str(error.value)
