"""Pickles of tensors and plain containers, read by an interpreter that knows nothing else.

A pickle is a program for a machine with a stack. Python's own machine calls any function that a pickle names; this one
runs the instructions that ``torch.save`` and TorchScript write, makes numbers, text, lists, tuples, dictionaries and
tensors, and refuses the rest. PyTorch's ``weights_only`` reader refuses the same objects, but lets a file of kilobytes
name tensors of terabytes, nest and repeat without bounds, and end the process by a key nested too deep.
"""

from __future__ import annotations

import math
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mote_fast.errors import one_line, quoted

# Bytes and instructions of a pickle. A run's checkpoint of ViT-L/14 has a tenth of the instructions.
MAX_BYTES = 2**23
MAX_INSTRUCTIONS = 2**21

_STORAGES = {
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
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}

_MAX_DIMENSIONS = 64
_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    {
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINBYTES",
        "SHORT_BINBYTES",
    }
)
_NO_EFFECT = frozenset({"PROTO", "FRAME"})
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

Storages = Callable[[str, torch.dtype, int], Tensor]


class UnsafeContentError(ValueError):
    """A pickle holds something else than tensors and plain containers; the message says what."""


class Record:
    """An instance of a class of a TorchScript archive: the class's name, and the values of its attributes."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.values: dict[str, Any] = {}


def read_plain(content: bytes, storages: Storages, records: bool = False) -> Any:
    """Interpret a pickle.

    Args:
        content: the pickle.
        storages: gives the storage of a key, dtype and length as a tensor [length].
        records: make a ``Record`` of an instance of a TorchScript class; otherwise they are refused.

    Raises:
        UnsafeContentError: the pickle refers to anything else than tensors and plain containers.
        ValueError: it is damaged, or larger than the limits.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"a pickle of over {MAX_BYTES} bytes")
    machine = _Machine(storages, records)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count == MAX_INSTRUCTIONS:
                raise ValueError(f"a pickle of over {MAX_INSTRUCTIONS} instructions")
            if opcode.name == "STOP":
                return machine.result()
            machine.step(opcode.name, argument)
    except UnsafeContentError:
        raise
    # A damaged pickle takes from an empty stack, or gives an instruction a value of the wrong kind.
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"its data.pkl is damaged ({one_line(error)})") from error
    raise ValueError("its data.pkl has no end")


class _Machine:
    """The stack and the memo of a pickle, and the instructions."""

    def __init__(self, storages: Storages, records: bool) -> None:
        self.stack: list[Any] = []
        self._storages = storages
        self._records = records
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _TUPLES:
            stack.append(tuple(self._pop() for _ in range(_TUPLES[name]))[::-1])
        elif name == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("APPEND", "APPENDS"):
            items = [self._pop()] if name == "APPEND" else self._pop_to_mark()
            _of_type(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [self._pop(), self._pop()][::-1] if name == "SETITEM" else self._pop_to_mark()
            _of_type(stack[-1], dict).update(_pairs(items))
        elif name == "GLOBAL":
            module, _, found = argument.partition(" ")
            stack.append(self._known(module, found))
        elif name == "STACK_GLOBAL":
            found, module = _of_type(self._pop(), str), _of_type(self._pop(), str)
            stack.append(self._known(module, found))
        elif name == "BINPERSID":
            stack.append(self._storage(*self._pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = _of_type(self._pop(), tuple), self._pop()
            if not isinstance(function, _Known):
                raise ValueError("a call of something that is no function")
            stack.append(function.call(*arguments))
        elif name == "BUILD":
            self._build(self._pop(), stack[-1])
        elif name not in _NO_EFFECT:
            raise UnsafeContentError(f"it has the instruction {name}, which no file of tensors needs")

    def result(self) -> Any:
        value = self._pop()
        if self.stack:
            raise ValueError("values are left over")
        return value

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark in place of a value")
        return value

    def _pop_to_mark(self) -> list[Any]:
        items = []
        while (value := self.stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]

    def _build(self, state: Any, target: Any) -> None:
        if isinstance(target, Record):
            if not isinstance(state, dict):
                raise UnsafeContentError(f"{quoted(target.kind)} restores itself by code of its own (__setstate__)")
            target.values.update(state)
        # A state dict has versions of its modules as an attribute, which nothing here needs.
        elif not isinstance(target, OrderedDict):
            raise UnsafeContentError(f"it sets attributes of a {type(target).__name__}")

    def _known(self, module: str, name: str) -> _Known:
        if module == "torch" and name in _STORAGES:
            return _Known(_refuse_call, _STORAGES[name])
        if self._records and module.startswith("__torch__"):
            kind = f"{module}.{name}"
            return _Known(lambda: Record(kind))
        if (module, name) in _FUNCTIONS:
            return _Known(_FUNCTIONS[module, name])
        raise UnsafeContentError(
            f"it holds a pickled Python object, {quoted(f'{module}.{name}')}, which could run any code when loaded"
        )

    def _storage(self, kind: str, dtype: _Known, key: str, _: object, length: int) -> Tensor:
        if kind != "storage" or not isinstance(dtype, _Known) or dtype.dtype is None:
            raise ValueError("a reference to something that is no storage")
        return self._storages(_of_type(key, str), dtype.dtype, _count(length))


class _Known:
    """A name that a pickle may hold: a function that it may call, or a storage's class, which stands for a dtype."""

    def __init__(self, call: Callable[..., Any], dtype: torch.dtype | None = None) -> None:
        self.call = call
        self.dtype = dtype


def _refuse_call(*_: object) -> Any:
    raise UnsafeContentError("it makes a storage without a file")


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    """A tensor as a view of its storage, which it does not leave, and which has at least as many elements."""
    last = _count(offset)
    if not isinstance(storage, Tensor) or storage.ndim != 1 or len(_of_type(size, tuple)) > _MAX_DIMENSIONS:
        raise ValueError("a tensor of something that is no storage, or of too many dimensions")
    for length, step in zip(size, _of_type(stride, tuple), strict=True):
        last += (_count(length) - 1) * _count(step)
    elements = math.prod(size)
    if elements > len(storage) or (elements and last >= len(storage)):
        raise ValueError("a tensor lies outside its storage")
    return storage.as_strided(size, stride, offset)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return _of_type(data, Tensor)


def _ordered_dict() -> dict[str | int, Any]:
    # With arguments it would take keys unchecked.
    return OrderedDict()


def _list(items: list[Any] | tuple[Any, ...]) -> list[Any]:
    return list(_of_type(items, (list, tuple)))


def _without_tag(value: object, _: object) -> object:
    return value


def _device(kind: str, index: int | None = None) -> str:
    kind = _of_type(kind, str)
    return kind if index is None else f"{kind}:{_count(index)}"


# The functions that files of tensors call, by module and name, in forms that do nothing else.
_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch", "Size"): _list,
    ("torch", "device"): _device,
    # By these TorchScript stores lists.
    ("torch.jit._pickle", "build_intlist"): _list,
    ("torch.jit._pickle", "build_doublelist"): _list,
    ("torch.jit._pickle", "build_boollist"): _list,
    ("torch.jit._pickle", "build_tensorlist"): _list,
    ("torch.jit._pickle", "restore_type_tag"): _without_tag,
}


def _of_type(value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} in place of another value")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("a length or position that is no number of items")
    return value


def _pairs(items: list[Any]) -> list[tuple[str | int, Any]]:
    """Keys and values; other keys than text and integers could be nested so deep that hashing them ends the process."""
    keys, values = items[::2], items[1::2]
    if not all(type(key) in (str, int) for key in keys):
        raise ValueError("a key that is neither text nor an integer")
    return list(zip(keys, values, strict=True))
