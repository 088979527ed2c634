"""Checkpoint files are read without importing or calling what their pickles name."""

import argparse
import collections
import datetime
import enum
import io
import pickle
import struct
import subprocess
import sys
import textwrap
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(("content", "said"), [
    (b"", "it is empty"),
    (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
])  # fmt: skip
def test_what_was_downloaded_instead_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_pickled(tmp_path / "x.pth")


def test_half_a_download_is_named(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(1000)}, tmp_path / "x.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="its end is missing"):
        read_pickled(tmp_path / "x.pth")


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


def shared(make: Callable[[Any], Any], depth: int = 60) -> Any:
    """A few hundred bytes whose walk never ends: every container holds the one before twice."""
    value: Any = make(0)
    for _ in range(depth):
        value = make(value)
    return value


def calls(module: str, name: str, *arguments: bytes) -> bytes:
    """A pickle that calls a function with arguments given as opcodes."""
    return b"\x80\x02" + f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR."


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def stored(count: int, held: int, compression: int, pickled: bytes | None = None) -> bytes:
    """PyTorch's zip format with one storage that is said to be of `count` floats and holds `held` bytes of zeros."""
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(7)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        root = archive.namelist()[0].split("/")[0]
        data = archive.read(f"{root}/data.pkl").replace(b"K\x07", number(count))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression, compresslevel=1) as archive:
        archive.writestr(f"{root}/data.pkl", pickled or data, None if pickled else zipfile.ZIP_STORED)
        with archive.open(f"{root}/data/0", "w", force_zip64=True) as entry:
            for begin in range(0, held, 1 << 24):
                entry.write(bytes(min(1 << 24, held - begin)))
    return out.getvalue()


def legacy(count: int) -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(7)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue().replace(b"K\x07", number(count))


MANY = b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20)  # a text of 1 MB
KEYS = pickle.dumps(shared(lambda v: (v, v)), 2)[2:-1]  # a tuple whose hash never ends
BOMBS: dict[str, bytes] = {
    "shared dicts": pickle.dumps(shared(lambda v: {"a": v, "b": v}) | {"w": 1}),
    "shared dicts of a model": pickle.dumps({"model": shared(lambda v: {"a": v, "b": v})}),
    "shared tuples as a key": b"\x80\x02}" + KEYS + b"K\x01s.",
    "shared tuples as keys": b"\x80\x02}(" + KEYS + b"K\x01u.",
    "shared tuples as keys of a DICT": b"\x80\x02(" + KEYS + b"K\x01d.",
    "shared tuples in a set": b"\x80\x04\x8f(" + KEYS + b"\x90.",
    "shared tuples in a set by call": calls("builtins", "set", b"]" + KEYS + b"a"),
    "shared tuples in a frozenset": b"\x80\x04(" + KEYS + b"\x91.",
    "shared tuples in an ordered dict": calls("collections", "OrderedDict", b"](" + KEYS + b"K\x01\x86e"),
    "shared tuples as a storage": b"\x80\x02(" + KEYS * 5 + b"tQ.",
    "dict in itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "deep dicts": b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 100_000 + b"}" + b"s" * 100_000 + b".",
    "deep lists": b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
    "bytearray of a number": calls("builtins", "bytearray", number(6 * 10**9)),
    "bytes of a number": calls("builtins", "bytes", number(6 * 10**9)),
    "bytes by their class": b"\x80\x02cbuiltins\nbytes\n" + number(6 * 10**9) + b"\x85\x81.",
    "set of a range": calls("builtins", "set", b"cbuiltins\nrange\n" + number(10**11) + b"\x85R"),
    "list of a range": calls("builtins", "list", b"cbuiltins\nrange\n" + number(10**11) + b"\x85R"),
    "a long text of shared lists": calls("builtins", "str", pickle.dumps(shared(lambda v: [v, v]), 2)[2:-1]),
    "one text encoded again and again": b"\x80\x02]" + MANY + b"q\x000" + (
        b"c_codecs\nencode\n(h\x00tRa" * 20_000) + b".",
    "one text copied again and again": b"\x80\x02]" + MANY + b"q\x000" + (
        b"cbuiltins\nbytearray\n(h\x00tRa" * 20_000) + b".",
    "a stated length of bytes": b"\x80\x04\x8e" + struct.pack("<Q", 10**11) + b"abc.",
    "a stated length of a bytearray": b"\x80\x05\x96" + struct.pack("<Q", 6 * 10**9) + b"abc.",
    "a stated frame": b"\x80\x04\x95" + struct.pack("<Q", 10**11) + b"N.",
    "a distant place in the memo": b"\x80\x02Nr" + struct.pack("<I", 0x7FFFFFFF) + b".",
    "a new size of a tensor": calls("builtins", "set").replace(b"tR.", b"tRK\x01b."),
    "a storage that is not in a legacy file": legacy(10**10),
    "a storage larger than a zip file": stored(10**10, 28, zipfile.ZIP_STORED),
    "a storage smaller than it says": stored(7, 24, zipfile.ZIP_STORED),
    "a compressed storage": stored(64 << 20, 256 << 20, zipfile.ZIP_DEFLATED),
    "a compressed pickle": stored(7, 28, zipfile.ZIP_DEFLATED, bytes(64 << 20)),
}  # fmt: skip
READS = """
    import resource, sys
    from vidstill.models.weights import load_weights
    from vidstill.models.registry import create_model
    model = create_model("vfl_net", 2, width=8, depths=(1,), focal_levels=(1,), focal_windows=(3,))
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (240 << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
    for path in sys.argv[1:]:
        try:
            load_weights(model, path)
        except ValueError as error:
            print(path.rsplit("/")[-1], "|", repr(str(error)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory and time are Linux's here")
def test_a_small_file_takes_neither_the_machine_nor_the_day(tmp_path: Path) -> None:
    paths = []
    for name, content in BOMBS.items():
        paths.append(tmp_path / f"{name}.pth")
        paths[-1].write_bytes(content)
    command = [sys.executable, "-c", textwrap.dedent(READS), *map(str, paths)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-2000:]
    answers = dict(line.split(" | ", 1) for line in found.stdout.splitlines())
    assert answers.keys() == {path.name for path in paths}
    assert all("\\n" not in answer and len(answer) < 500 for answer in answers.values()), answers
    assert not any("MemoryError" in answer for answer in answers.values()), answers


def test_shared_dicts_stay_shared(tmp_path: Path) -> None:
    inner = {"w": np.ones(3, np.float32)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": inner, "b": inner}))
    read = read_pickled(tmp_path / "x.pkl")
    assert read["a"] is read["b"] and read["a"]["w"].tolist() == [1, 1, 1]


def test_one_number_repeated_is_a_tensor_but_not_without_end(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(1000)}, tmp_path / "x.pth")
    assert read_pickled(tmp_path / "x.pth")["w"].sum() == 1000
    torch.save({"w": torch.ones(1).expand(10**10)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"a tensor of 1e\+10 elements over a storage of 4"):
        read_pickled(tmp_path / "x.pth")


@BOTH
def test_an_object_that_would_change_a_tensor_cannot(tmp_path: Path, new_format: bool) -> None:
    """`BUILD` would hand a state to whatever it finds, and PyTorch's tensors take one that resizes them."""

    class Tensor:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, self.arguments, (torch.zeros(1), 0, (10**10,), (1,))

    whole = torch.arange(4.0)
    reduced = whole.__reduce_ex__(2)
    evil = Tensor()
    evil.arguments = reduced[1]  # type: ignore[attr-defined]
    torch.save({"w": evil}, tmp_path / "x.pth", _use_new_zipfile_serialization=new_format)
    assert read_pickled(tmp_path / "x.pth")["w"].tolist() == [0, 1, 2, 3]
