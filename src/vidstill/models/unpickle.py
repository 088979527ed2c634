"""Tensors out of released checkpoint files, without importing or calling anything that their pickles name.

A PyTorch file is a pickle beside raw tensor storages. The pickle is read by an unpickler that knows how tensors are
put together and nothing else: every other class or function, a pickled configuration object for one, becomes an inert
stand-in whose library need not be installed. Names that serve only to run code are refused. A file costs time and
memory in proportion to its size: lengths are believed only as far as the file goes, keys are plain values (a tuple of
tuples of tuples … has no end of hash), and what a few bytes may copy is counted.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the format before PyTorch 1.6

_DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,
}  # fmt: skip
_RUNS_CODE = {
    "os", "posix", "nt", "sys", "subprocess", "commands", "shutil", "socket", "pty", "runpy", "importlib", "imp",
    "ctypes", "code", "codeop", "marshal", "webbrowser", "asyncio",
}  # fmt: skip
SPARE = 16 << 20  # bytes that any file may take beyond its own size
_RUNS_CODE_BUILTIN = {"eval", "exec", "execfile", "compile", "open", "input", "breakpoint", "__import__"}


def read_pickled(path: Path) -> Any:
    """What a .pth, .pyth, .pt, .th, .tar, .ckpt or .pkl file holds: containers and CPU tensors, the rest as stand-ins.

    Reads PyTorch's zip format, the format before it, and bare pickles. Raises ValueError in one line for a file that
    is damaged, is none of these, or asks to run code; nothing of it has then been executed.
    """
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                return _read_zip(file)
            file.seek(0)
            return _read_stream(file)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    except _Refused as error:
        name = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} asks to run {name}: refused, nothing was executed; do not trust this file") from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{path} is not a readable checkpoint: {_damage(path, error)}") from None


def _damage(path: Path, error: Exception) -> str:
    """What is the matter with a file, by its first bytes where these tell more than the `error` of reading it."""
    with path.open("rb") as file:
        begin = file.read(512)
    if not begin:
        return "it is empty"
    if begin.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        return "its end is missing; copy or download it again"
    if begin.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; `git lfs pull` fetches what it stands for"
    if re.match(rb"\s*<(!doctype|html|\?xml)", begin, re.IGNORECASE):
        return "it is a web page, as sites give for a file that they do not hand out; download it again"
    reason = " ".join(str(error).split())[:120]
    return f"{type(error).__name__}{f': {reason}' if reason else ''}"


class _Refused(Exception):  # noqa: N818 - never leaves this file
    pass


class _StandIn(dict[Any, Any]):
    """In the place of any foreign object: takes what a pickle gives it and does nothing."""

    __hash__ = object.__hash__  # type: ignore[assignment] # may be a key of another dict

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __new__(cls, *args: Any, **kwargs: Any) -> _StandIn:
        return super().__new__(cls)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> _StandIn:
        return self

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    add = append


class _Storage:
    """Bytes of one or more tensors; their data may come after the pickle that names them."""

    def __init__(self, dtype: torch.dtype, count: int) -> None:
        raw = bytearray(count * dtype.itemsize)
        self.raw, self.dtype = memoryview(raw), dtype
        self.values = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)

    def fill(self, file: IO[bytes]) -> None:
        if file.readinto(self.raw) != len(self.raw):  # type: ignore[attr-defined]
            raise pickle.UnpicklingError("the file ends early")


class _ArrayType:
    """A numpy dtype: only numbers."""

    def __init__(self, code: str = "", *_: Any) -> None:
        self.code: str = code
        self.order: Any = "="

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.order = "=" if state[1] == "|" else state[1]


class _Array:
    """A numpy array that becomes a tensor when the pickle is read."""

    def __init__(self, *_: Any) -> None:
        self.kind, self.raw, self.shape, self.order = _ArrayType("f4"), b"", (0,), "C"

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, kind, fortran, raw = state
        if re.fullmatch("[fiub][1248]", kind.code):  # objects: foreign, and inert like any other
            self.kind, self.raw, self.shape, self.order = kind, raw, shape, "F" if fortran else "C"

    def tensor(self) -> Tensor:
        raw = self.raw.encode("latin1") if isinstance(self.raw, str) else self.raw  # Python 2 wrote strings
        array = np.frombuffer(raw, np.dtype(self.kind.code).newbyteorder(self.kind.order))
        return torch.from_numpy(array.reshape(self.shape, order=self.order).astype(self.kind.code))  # type: ignore[call-overload]


class _Allowance:
    """What a file may still take for copies of what it holds."""

    def __init__(self, size: int) -> None:
        self.size, self.left = size, SPARE + 4 * size

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise pickle.UnpicklingError("it asks for far more memory than the file has bytes")


def _tensors(value: Any, allowance: _Allowance, done: dict[int, Any]) -> Any:
    """`value` with tensors for its arrays; what is shared stays shared."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _Array):
        allowance.spend(3 * len(value.raw))
        done[id(value)] = value.tensor()
    elif isinstance(value, dict) and any(isinstance(v, dict | _Array) for v in value.values()):
        result = done[id(value)] = {}
        result.update((key, _tensors(v, allowance, done)) for key, v in value.items())
    else:
        return value
    return done[id(value)]


def _rebuild_tensor(storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    if math.prod(size) > max(len(storage.values), SPARE):  # one number, repeated without end
        raise pickle.UnpicklingError(f"a tensor of {math.prod(size):.0e} elements over a storage of {len(storage.raw)}")
    return storage.values.as_strided(tuple(size), tuple(stride), offset)


def _rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


_KNOWN: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "numpy.dtype": _ArrayType,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "builtins.complex": complex,
}


class _Lines:
    """A file to an unpickler, that hands out no more than there is."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size, self.readline = file, size, file.readline

    def read(self, count: int) -> bytes:
        if count > 1 << 16 and count > self.size - self.file.tell():
            raise pickle.UnpicklingError("the file ends early")
        return self.file.read(count)


_InPython: Any = pickle._Unpickler  # the one that lets us see what it does to objects


class _Reader(_InPython):
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_InPython.dispatch)

    def __init__(self, file: IO[bytes], allowance: _Allowance, storage: Callable[..., _Storage]) -> None:
        super().__init__(_Lines(file, allowance.size), encoding="latin1")  # Python 2 wrote some of these files
        self.allowance, self.storage = allowance, storage
        self.stand_ins: dict[tuple[str, str], Any] = {}
        self.known = {
            "collections.OrderedDict": self.ordered,
            "_codecs.encode": lambda text, *_: self.bytes_of(text),  # how protocol 2 writes bytes
            "builtins.bytes": self.bytes_of,
            "builtins.bytearray": lambda *of: bytearray(self.bytes_of(*of)),
            "builtins.set": lambda items=(): set(self.plain(items)),
            "builtins.frozenset": lambda items=(): frozenset(self.plain(items)),
        }

    def find_class(self, module: str, name: str) -> Any:
        builtin = module in ("builtins", "__builtin__")
        if module.split(".", 1)[0] in _RUNS_CODE or (builtin and name in _RUNS_CODE_BUILTIN):
            raise _Refused(f"{module}.{name}")
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        full = f"builtins.{name}" if builtin else f"{module}.{name}"
        if full in _KNOWN or full in self.known:
            return _KNOWN.get(full) or self.known[full]
        if (module, name) not in self.stand_ins:
            self.stand_ins[module, name] = type(name, (_StandIn,), {"__module__": module})
        return self.stand_ins[module, name]

    def persistent_load(self, identity: Any) -> _Storage:
        kind, dtype, key, _, count, *view = identity
        if (
            kind not in ("storage", b"storage")
            or not isinstance(dtype, torch.dtype)
            or not isinstance(key, str | int)
            or not isinstance(count, int)
            or count < 0
            or any(v is not None for v in view)
        ):
            raise pickle.UnpicklingError("a tensor's storage of an unknown kind")
        return self.storage(dtype, str(key), count)

    def plain(self, items: Any) -> list[Any]:
        """Items that may be keys; only containers of the pickle itself are gone through."""
        if not isinstance(items, list | tuple | set | frozenset):
            raise pickle.UnpicklingError(f"keys from a {type(items).__name__}")
        self.allowance.spend(100 * len(items))
        for item in items:
            for part in item if isinstance(item, tuple) else (item,):
                if isinstance(part, tuple | frozenset):
                    raise pickle.UnpicklingError("a key that is not a plain value")
        return list(items)

    def ordered(self, pairs: Iterable[Any] = (), *_: Any) -> OrderedDict[Any, Any]:
        values = list(pairs) if isinstance(pairs, list | tuple) else []
        self.plain([key for key, _ in values])
        return OrderedDict(values)

    def bytes_of(self, data: Any = b"", *_: Any) -> bytes:
        if not isinstance(data, str | bytes | bytearray):
            raise pickle.UnpicklingError(f"bytes of a {type(data).__name__}")
        self.allowance.spend(len(data))
        return data.encode("latin1") if isinstance(data, str) else bytes(data)

    def put(self, target: Any, items: list[Any]) -> None:
        self.plain(items[::2])
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key] = value

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.put(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.put(self.stack[-1], items)

    def load_dict(self) -> None:
        made: dict[Any, Any] = {}
        self.put(made, self.pop_mark())
        self.append(made)

    def load_additems(self) -> None:
        items = self.pop_mark()
        for item in self.plain(items):
            self.stack[-1].add(item)

    def load_frozenset(self) -> None:
        self.append(frozenset(self.plain(self.pop_mark())))

    def load_bytearray8(self) -> None:
        (count,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(count)))

    def load_build(self) -> None:
        """Only an array has a state that counts."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], _Array | _ArrayType):
            self.stack[-1].__setstate__(state)

    for _code, _load in {
        pickle.SETITEM: load_setitem, pickle.SETITEMS: load_setitems, pickle.DICT: load_dict,
        pickle.ADDITEMS: load_additems, pickle.FROZENSET: load_frozenset, pickle.BYTEARRAY8: load_bytearray8,
        pickle.BUILD: load_build,
    }.items():  # fmt: skip
        dispatch[_code[0]] = _load


def _length(file: IO[bytes]) -> int:
    here = file.tell()
    length = file.seek(0, 2)
    file.seek(here)
    return length


def _read_zip(file: IO[bytes]) -> Any:
    allowance = _Allowance(_length(file))
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "constants.pkl" in entries:
            raise pickle.UnpicklingError("a TorchScript program, not a file of weights")
        if "data.pkl" not in entries:
            raise pickle.UnpicklingError("a zip archive without data.pkl")
        storages: dict[str, _Storage] = {}

        def open_entry(name: str) -> IO[bytes]:
            info = entries[name]
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise pickle.UnpicklingError(f"{name} is compressed, which PyTorch does not do")
            allowance.spend(info.file_size)  # entries may lie over each other
            return archive.open(info)

        def storage(dtype: torch.dtype, key: str, count: int) -> _Storage:
            if key not in storages:
                if count * dtype.itemsize != entries[f"data/{key}"].file_size:
                    raise pickle.UnpicklingError(f"storage {key:.20} has another size than its tensors say")
                with open_entry(f"data/{key}") as data:
                    storages[key] = _Storage(dtype, count)
                    storages[key].fill(data)
            if (storages[key].dtype, len(storages[key].values)) != (dtype, count):
                raise pickle.UnpicklingError(f"storage {key:.20} is of two types or sizes")
            return storages[key]

        with open_entry("data.pkl") as data:
            return _Reader(data, allowance, storage).load()


def _read_stream(file: IO[bytes]) -> Any:
    size = _length(file)
    allowance = _Allowance(size)
    storages: dict[str, _Storage] = {}
    declared = 0

    def storage(dtype: torch.dtype, key: str, count: int) -> _Storage:
        nonlocal declared
        if key not in storages:
            declared += count * dtype.itemsize
            if declared > size:
                raise pickle.UnpicklingError("the file ends early")
            storages[key] = _Storage(dtype, count)
        return storages[key]

    def objects() -> Iterator[Any]:
        while True:
            yield _Reader(file, allowance, storage).load()

    reader = objects()
    first = next(reader)
    if not (isinstance(first, int) and first == MAGIC):
        return _tensors(first, allowance, {})
    _, _, value, keys = (next(reader) for _ in range(4))  # protocol, byte order and sizes, the object, its storages
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        held = storages[str(key) if isinstance(key, str | int) else ""]
        if count * held.dtype.itemsize != len(held.raw):
            raise pickle.UnpicklingError("the file ends early")
        held.fill(file)
    return value
