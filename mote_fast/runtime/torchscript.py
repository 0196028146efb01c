"""The weights of a TorchScript archive, read without running anything of it.

``torch.jit.load`` runs the archive's ``__setstate__``, which may call any registered operator, and so read and write
any file. Here the archive's pickle is read by an unpickler that knows tensors and plain containers only; the archive's
classes become namespaces, and its code is searched for the names of parameters and buffers, not run.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

# Functions by which TorchScript stores lists; each is given the list.
_LISTS = frozenset({"build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"})

# Bytes of code, unpacked; ViT-L/14's archive has half a megabyte.
_MAX_CODE = 2**26

_CLASS = re.compile(r"class (\w+)\(Module\):")
_NAMES = re.compile(r"\s+__(?:parameters|buffers)__ = \[(.*)\]")


class UnsafeArchiveError(ValueError):
    """The archive holds something else than modules of tensors; the message says what."""


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, recognised by ``constants.pkl`` in its zip directory."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read the parameters and buffers of the module in an archive onto the CPU, named as in its state dict.

    Raises:
        UnsafeArchiveError: the archive's module has a ``__setstate__`` of its own, or holds other objects.
        ValueError: the archive is damaged.
        OSError: the file cannot be read.
    """
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        root = next(name for name in members if name.endswith("/constants.pkl")).removesuffix("constants.pkl")
        code, data = (
            f"{root}code/",
            [info for name, info in members.items() if name.startswith((f"{root}data/", f"{root}data.pkl"))],
        )
        if any(info.compress_type != zipfile.ZIP_STORED for info in data):
            raise UnsafeArchiveError("its tensors are compressed, which PyTorch's are not")
        if sum(info.file_size for name, info in members.items() if name.startswith(code)) > _MAX_CODE:
            raise UnsafeArchiveError(f"it holds over {_MAX_CODE >> 20} MiB of code")
        names = _names_of_weights(archive, code)
        storages = _Storages(archive, members, root)
        content = io.BytesIO(archive.read(f"{root}data.pkl"))
        try:
            module = _Unpickler(content, storages).load()
        except (KeyError, IndexError, TypeError, AttributeError, EOFError, OverflowError, RuntimeError) as error:
            raise ValueError(f"its data.pkl is damaged ({error})") from error
    if not isinstance(module, _Module):
        raise UnsafeArchiveError(f"it holds a {type(module).__name__}, not a module")
    # Tensors may share a storage.
    return {name: value.clone() for name, value in _weights(module, names, "", 0)}


class _Module:
    """An instance of a class of the archive."""

    kind = ""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise UnsafeArchiveError(f"{self.kind} restores itself by code of its own (__setstate__)")
        self.__dict__.update(state)


class _Storages:
    """The storages of an archive, each read once."""

    def __init__(self, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], root: str) -> None:
        self._archive = archive
        self._members = members
        self._root = root
        self._read: dict[str, Tensor] = {}

    def __getitem__(self, identity: Any) -> Tensor:
        """The storage that a persistent id names, as a tensor [numel]."""
        _, dtype, key, _, numel = identity
        name = f"{self._root}data/{key}"
        if not isinstance(dtype, torch.dtype) or self._members[name].file_size != numel * dtype.itemsize:
            raise ValueError(f"its {name} does not have the size that data.pkl states")
        if name not in self._read:
            content = bytearray(self._archive.read(name))
            self._read[name] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self._read[name]


class _Unpickler(pickle.Unpickler):
    """Knows tensors, plain containers and the archive's classes, and refuses everything else."""

    def __init__(self, file: io.BytesIO, storages: _Storages) -> None:
        super().__init__(file)
        self._storages = storages

    def persistent_load(self, pid: Any) -> Tensor:
        return self._storages[pid]

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name.startswith("__torch__"):
            return type("Module", (_Module,), {"kind": f"{module_name}.{global_name}"})
        match module_name, global_name:
            case "torch._utils", "_rebuild_tensor_v2":
                return _rebuild
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch", name if name in _DTYPES:
                return _DTYPES[name]
            case "torch.jit._pickle", name if name in _LISTS:
                return list
            case "torch.jit._pickle", "restore_type_tag":
                return _without_tag
        raise UnsafeArchiveError(f"it refers to {module_name}.{global_name}")


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if math.prod(size) and not (0 <= offset <= last < len(storage) and min((*stride, 0)) >= 0):
        raise ValueError("a tensor lies outside its storage")
    return storage.as_strided(size, stride, offset)


def _without_tag(value: object, _: object) -> object:
    return value


def _names_of_weights(archive: zipfile.ZipFile, code: str) -> dict[str, set[str]]:
    """The names of parameters and buffers of each class, from the archive's code."""
    found: dict[str, set[str]] = {}
    for member in archive.namelist():
        if not (member.startswith(code) and member.endswith(".py")):
            continue
        module = member.removeprefix(code).removesuffix(".py").replace("/", ".")
        current: set[str] = set()
        for line in archive.read(member).decode("utf-8", "replace").splitlines():
            if match := _CLASS.match(line):
                current = found[f"{module}.{match[1]}"] = set()
            elif match := _NAMES.match(line):
                current.update(re.findall(r'"([^"]+)"', match[1]))
    return found


def _weights(module: _Module, names: dict[str, set[str]], prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > 100:
        raise UnsafeArchiveError("its modules contain each other")
    own = names.get(module.kind, set())
    for name, value in vars(module).items():
        if isinstance(value, _Module):
            yield from _weights(value, names, f"{prefix}{name}.", depth + 1)
        elif isinstance(value, Tensor) and name in own:
            yield f"{prefix}{name}", value
