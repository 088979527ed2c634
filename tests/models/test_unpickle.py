"""Checkpoint files are read without importing or calling what their pickles name."""

import argparse
import collections
import datetime
import enum
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from vidstill.models.unpickle import read_pickled

BOTH = pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])


@BOTH
def test_tensors_equal_those_of_torch_load(tmp_path: Path, new_format: bool) -> None:
    whole = torch.randn(6, 5)
    value = {
        "transposed": whole.t(), "view": whole[1:3, ::2], "same storage": whole, "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3), "half": torch.randn(3).half(), "bf16": torch.randn(3).bfloat16(),
        "long": torch.arange(3), "bool": torch.tensor([True, False]), "byte": torch.arange(4, dtype=torch.uint8),
        "parameter": torch.nn.Parameter(torch.randn(2)), "double": torch.randn(2).double(),
        "nested": [({"x": torch.ones(2)}, {1, 2}, None, 3.5, "text")],
    }  # fmt: skip
    torch.save(collections.OrderedDict(value), tmp_path / "x.pth", _use_new_zipfile_serialization=new_format)
    ours = read_pickled(tmp_path / "x.pth")
    theirs = torch.load(tmp_path / "x.pth", weights_only=True)
    assert list(ours) == list(theirs)
    for name in value.keys() - {"nested"}:
        assert ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]), name
    (entry,) = ours["nested"]
    assert torch.equal(entry[0]["x"], torch.ones(2)) and entry[1:] == ({1, 2}, None, 3.5, "text")


class Colour(enum.Enum):
    RED = 1


@BOTH
@pytest.mark.parametrize("protocol", [2, 4])
def test_foreign_objects_are_inert(tmp_path: Path, new_format: bool, protocol: int) -> None:
    class Listing(list):
        pass

    module = types.ModuleType("foreign.config")
    for cls in (Listing, type("Node", (dict,), {}), type("Slots", (), {"__slots__": ("a",)})):
        cls.__module__, cls.__qualname__ = "foreign.config", cls.__name__
        setattr(module, cls.__name__, cls)
    node = module.Node(A=module.Node(B=Listing([1, 2])), C=3)
    node.frozen = True
    slots = module.Slots()
    slots.a = 1
    value = {
        "model": {"w": torch.ones(2)}, "config": node, "slots": slots, "list": Listing([node]), Colour.RED: 1,
        "args": argparse.Namespace(lr=0.1), "accuracy": np.float64(71.5), "array": np.arange(3),
        "when": datetime.datetime(2020, 1, 1), "path": Path("x"),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "foreign", types.ModuleType("foreign"))
        patch.setitem(sys.modules, "foreign.config", module)
        torch.save(value, tmp_path / "x.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=new_format)
    read = read_pickled(tmp_path / "x.pth")
    assert torch.equal(read["model"]["w"], torch.ones(2))
    assert type(read["config"]) is not module.Node and "foreign" not in sys.modules
    assert read["config"]["C"] == 3  # a mapping keeps its entries, nothing of the class runs
    assert len(read) == len(value)


@BOTH
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.Popen", "builtins.exec", "runpy.run_path"])
def test_code_is_refused_by_name(tmp_path: Path, new_format: bool, name: str) -> None:
    module, function = name.rsplit(".", 1)
    target = getattr(sys.modules.get(module) or __import__(module), function)
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (target, (f"open({str(marker)!r}, 'w')" if module == "builtins" else f"touch {marker}",))

    torch.save({"model": {}, "x": Evil()}, tmp_path / "x.pth", _use_new_zipfile_serialization=new_format)
    with pytest.raises(ValueError, match=f"asks to run .*{function}: refused, nothing was executed") as error:
        read_pickled(tmp_path / "x.pth")
    assert "\n" not in str(error.value) and not marker.exists()


def test_code_behind_an_unknown_function_does_not_run(tmp_path: Path) -> None:
    """A gadget need not be a famous function: whatever it is, calling it only makes a stand-in."""
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (Path.write_text, (marker, "x"))

    torch.save({"x": Evil(), "w": torch.ones(1)}, tmp_path / "x.pth")
    assert torch.equal(read_pickled(tmp_path / "x.pth")["w"], torch.ones(1))
    assert not marker.exists()


@BOTH
def test_damaged_files_are_named_in_one_line(tmp_path: Path, new_format: bool) -> None:
    path = tmp_path / "x.pth"
    torch.save({"w": torch.randn(1000)}, path, _use_new_zipfile_serialization=new_format)
    whole = path.read_bytes()
    for content in (whole[:-100], whole[: len(whole) // 2], b"", b"not a checkpoint", whole[:10]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.pth is not a readable checkpoint") as error:
            read_pickled(path)
        assert "\n" not in str(error.value)


def test_other_files(tmp_path: Path) -> None:
    script = torch.jit.script(torch.nn.Linear(2, 2))
    script.save(str(tmp_path / "script.pt"))
    with pytest.raises(ValueError, match="TorchScript"):
        read_pickled(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a/b.txt", "x")
    with pytest.raises(ValueError, match=r"without data\.pkl"):
        read_pickled(tmp_path / "other.zip")
    with pytest.raises(ValueError, match="cannot read"):
        read_pickled(tmp_path / "absent.pth")


def test_a_tensor_cannot_reach_outside_its_storage(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"w": torch.zeros(4)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    (pickled,) = [name for name in entries if name.endswith("data.pkl")]
    # BININT1 4 is both the number of elements in the storage and the size of the tensor.
    entries[pickled] = entries[pickled].replace(b"K\x04\x85", b"M\x00\x40\x85")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        read_pickled(path)


def test_a_bare_pickle(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": [1, 2]}))
    assert read_pickled(tmp_path / "x.pkl") == {"a": [1, 2]}


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_of_a_bare_pickle_become_tensors(tmp_path: Path, protocol: int) -> None:
    arrays = {"a": np.arange(6, dtype=">f4").reshape(2, 3), "b": np.asfortranarray(np.ones((2, 2), np.int64))}
    arrays["objects"] = np.array([{}], dtype=object)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"blobs": arrays}, protocol))
    blobs = read_pickled(path)["blobs"]
    assert blobs["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and blobs["a"].dtype == torch.float32
    assert blobs["b"].tolist() == [[1, 1], [1, 1]] and blobs["objects"].numel() == 0
