"""Tensors out of released checkpoint files, without importing or calling anything that their pickles name.

A PyTorch file is a pickle beside raw tensor storages. The pickle is read by an unpickler that knows how tensors are
put together and nothing else: every other class or function, a pickled configuration object for one, becomes an inert
stand-in whose library need not be installed. Names that serve only to run code are refused.
"""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

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
_HARMLESS = {
    "set": set, "frozenset": frozenset, "complex": complex, "slice": slice, "bytearray": bytearray, "range": range,
    "list": list, "dict": dict, "tuple": tuple, "int": int, "float": float, "str": str, "bool": bool, "bytes": bytes,
}  # fmt: skip
_RUNS_CODE = {
    "os", "posix", "nt", "sys", "subprocess", "commands", "shutil", "socket", "pty", "runpy", "importlib", "imp",
    "ctypes", "code", "codeop", "marshal", "webbrowser", "asyncio",
}  # fmt: skip
_RUNS_CODE_BUILTIN = {"eval", "exec", "execfile", "compile", "open", "input", "breakpoint", "__import__"}


def read_pickled(path: Path) -> Any:
    """What a .pth, .pt, .th, .tar or .pkl file holds: containers and CPU tensors, the rest as stand-ins.

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
        raise ValueError(f"{path} asks to run {error}: refused, nothing was executed; do not trust this file") from None
    except Exception as error:  # a damaged pickle can fail in any way
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} is not a readable checkpoint ({type(error).__name__}: {reason})") from None


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

    def __init__(self, dtype: torch.dtype, data: bytes | None = None, count: int = 0) -> None:
        size = torch.empty((), dtype=dtype).element_size()
        raw = bytearray(count * size) if data is None else bytearray(data)
        self.raw = memoryview(raw)
        self.values = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)


class _ArrayType:
    """A numpy dtype: only numbers."""

    def __init__(self, code: str = "", *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.order = "=" if state[1] == "|" else state[1]


class _Array:
    """A numpy array that becomes a tensor when the pickle is read."""

    def __init__(self, *_: Any) -> None:
        self.tensor = torch.empty(0)

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, kind, fortran, raw = state
        if not re.fullmatch("[fiub][1248]", kind.code):  # objects: foreign, and inert like any other
            return
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2 wrote strings
        dtype = np.dtype(kind.code).newbyteorder(kind.order)
        array = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
        self.tensor = torch.from_numpy(array.astype(kind.code))


def _tensors(value: Any) -> Any:
    if isinstance(value, dict) and any(isinstance(v, dict | _Array) for v in value.values()):
        return {key: _tensors(v) for key, v in value.items()}
    return value.tensor if isinstance(value, _Array) else value


def _rebuild_tensor(storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    return storage.values.as_strided(tuple(size), tuple(stride), offset)


def _rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


_KNOWN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "_codecs.encode": lambda text, *_: text.encode("latin1"),  # how protocol 2 writes bytes
    "numpy.dtype": _ArrayType,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
}


class _Reader(pickle.Unpickler):
    def __init__(self, file: IO[bytes], storage: Callable[..., _Storage]) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote some of these files
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        builtin = module in ("builtins", "__builtin__")
        if builtin and name in _HARMLESS:
            return _HARMLESS[name]
        if module.split(".", 1)[0] in _RUNS_CODE or (builtin and name in _RUNS_CODE_BUILTIN):
            raise _Refused(f"{module}.{name}")
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        return _KNOWN.get(f"{module}.{name}") or type(name, (_StandIn,), {"__module__": module})

    def persistent_load(self, identity: Any) -> _Storage:
        kind, dtype, key, _, count, *view = identity
        if (
            kind not in ("storage", b"storage")
            or not isinstance(dtype, torch.dtype)
            or any(v is not None for v in view)
        ):
            raise pickle.UnpicklingError(f"cannot place a {kind} of {dtype}")
        return self.storage(dtype, str(key), count)


def _read_zip(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = {name.partition("/")[2]: name for name in archive.namelist()}
        if "constants.pkl" in names:
            raise pickle.UnpicklingError("a TorchScript program, not a file of weights")
        if "data.pkl" not in names:
            raise pickle.UnpicklingError("a zip archive without data.pkl")
        storages: dict[str, _Storage] = {}

        def storage(dtype: torch.dtype, key: str, count: int) -> _Storage:
            if key not in storages:
                storages[key] = _Storage(dtype, archive.read(names[f"data/{key}"]))
            return storages[key]

        with archive.open(names["data.pkl"]) as data:
            return _Reader(data, storage).load()


def _read_stream(file: IO[bytes]) -> Any:
    storages: dict[str, _Storage] = {}

    def storage(dtype: torch.dtype, key: str, count: int) -> _Storage:
        return storages.setdefault(key, _Storage(dtype, count=count))

    def objects() -> Iterator[Any]:
        while True:
            yield _Reader(file, storage).load()

    reader = objects()
    first = next(reader)
    if first != MAGIC:
        return _tensors(first)
    _, _, value, keys = (next(reader) for _ in range(4))  # protocol, byte order and sizes, the object, its storages
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        raw = storages[str(key)].raw
        if count * storages[str(key)].values.element_size() != len(raw) or file.readinto(raw) != len(raw):  # type: ignore[attr-defined]
            raise pickle.UnpicklingError("the file ends early")
    return value
