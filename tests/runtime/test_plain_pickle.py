"""Pickles of tensors and plain containers; whatever else a pickle holds is refused, and nothing runs."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mote_fast.runtime import plain_pickle
from mote_fast.runtime.plain_pickle import UnsafeContentError, read_plain
from mote_fast.runtime.weights import read_weights

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text() | st.integers(-(2**40), 2**40), inner, max_size=3)
    ),
    max_leaves=20,
)


def no_storages(key: str, dtype: torch.dtype, length: int) -> Tensor:
    raise AssertionError("a storage")


@given(PLAIN, st.integers(2, 5))
def test_plain_values_are_those_of_pickle(value: object, protocol: int) -> None:
    """Every protocol that PyTorch may be asked to write."""
    assert read_plain(pickle.dumps(value, protocol), no_storages) == value


def test_checkpoints_are_those_of_pytorch(tmp_path: Path) -> None:
    """State dicts with attributes, an optimiser's state, parameters, shared and transposed tensors, all dtypes."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    shared = torch.randn(4, 6)
    content: dict[str, Any] = {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "views": [shared, shared[1:, ::2], shared.t(), torch.empty(0, 3), torch.tensor(5.0)],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "ordered": OrderedDict(b=1, a=(True, None, 1.5, "text")),
        "types": [torch.ones(3).to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.int8, torch.bool)],
        "size": torch.Size([2, 3]),
        "device": torch.device("cuda", 1),
    }
    torch.save(content, tmp_path / "c.pt")
    expected = torch.load(tmp_path / "c.pt", map_location="cpu", weights_only=True)
    found = read_weights(tmp_path / "c.pt")
    assert found.pop("size") == list(expected.pop("size"))
    assert found.pop("device") == str(expected.pop("device"))
    assert list(found["ordered"].items()) == list(content["ordered"].items())
    compare(found, expected)


def compare(found: Any, expected: Any) -> None:
    if isinstance(expected, Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            compare(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            compare(one, other)
    else:
        assert found == expected


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize(
    "value",
    [
        Call(eval, "1/0"),
        {"a": [Call(Path.touch, "x")]},
        Path("x"),
        {1, 2},
        Call(torch.jit.load, "x"),
        Call(OrderedDict, [(("deep",), 1)]),
        print,
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_are_refused(value: object, protocol: int) -> None:
    """Whatever the protocol names."""
    with pytest.raises(ValueError, match=r"pickled Python object|instruction|data\.pkl is damaged"):
        read_plain(pickle.dumps(value, protocol), no_storages)


REBUILD = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
    b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0aX\x03\0\0\0cpuK\x08tQ"
)


def rebuilt(offset: bytes, size: bytes, stride: bytes) -> Any:
    content = REBUILD + offset + b"(" + size + b"t(" + stride + b"t\x89ccollections\nOrderedDict\n)RtR."
    return read_plain(content, lambda key, dtype, length: torch.arange(length, dtype=dtype))


def test_a_tensor_of_a_storage() -> None:
    """The form of the cases below."""
    assert torch.equal(rebuilt(b"K\x01", b"K\x02K\x03", b"K\x03K\x01"), torch.arange(1.0, 7.0).reshape(2, 3))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (b"K\x03", b"K\x02K\x03", b"K\x03K\x01"),
        (b"K\x00", b"J\xff\xff\xff\x7f", b"K\x00"),
        (b"K\x00", b"K\x03K\x03", b"K\x00K\x00"),
        (b"J\xff\xff\xff\xff", b"K\x02", b"K\x01"),
        (b"K\x04", b"K\x02", b"J\xff\xff\xff\xff"),
        (b"K\x00", b"K\x02", b"K\x01K\x01"),
        (b"K\x00", b"\x88", b"K\x01"),
        (b"K\x00", b"\x8a\x09\0\0\0\0\0\0\0\0\1K\x00", b"K\x01K\x01"),
        (b"K\x00", b"K\x01" * 65, b"K\x01" * 65),
        (b"N", b"K\x01", b"K\x01"),
    ],
)
def test_tensors_stay_inside_their_storage(offset: bytes, size: bytes, stride: bytes) -> None:
    """Neither outside it, nor a terabyte of one repeated number."""
    with pytest.raises(ValueError, match=r"data\.pkl is damaged"):
        rebuilt(offset, size, stride)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}" + b"(" * 99_999 + b"t" * 99_999 + b"K\x01s.",
        b"\x80\x02}(" + b")\x85" * 3 + b"u.",
        b"\x80\x02(.",
        b"\x80\x02.",
        b"\x80\x02]a.",
        b"\x80\x02]K\x01",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02j\xff\xff\xff\xff.",
        b"\x80\x02K\x01)R.",
        b"\x80\x02K\x01}b.",
        b"",
    ],
    ids=["deep key", "keys", "mark", "empty", "list", "no end", "put", "get", "call", "build", "nothing"],
)
def test_damaged_pickles(content: bytes) -> None:
    """Python's own machine ends the process at a key nested too deep, and makes a memo of 64 GB for one number."""
    with pytest.raises(ValueError, match=r"data\.pkl|instruction|attributes"):
        read_plain(content, no_storages)


def test_counts_are_bounded() -> None:
    """Bytes and instructions."""
    with pytest.raises(ValueError, match="bytes"):
        read_plain(b"\x80\x02" + bytes(plain_pickle.MAX_BYTES), no_storages)
    with pytest.raises(ValueError, match="instructions"):
        read_plain(b"\x80\x02(" + b"N" * plain_pickle.MAX_INSTRUCTIONS + b"t.", no_storages)


def test_instances_of_classes_are_for_scripts(tmp_path: Path) -> None:
    """A file of torch.save has no use for TorchScript's classes."""
    content = b"\x80\x02c__torch__\nM\n)\x81}X\x01\0\0\0aK\x01sb."
    assert read_plain(content, no_storages, records=True).values == {"a": 1}
    with pytest.raises(UnsafeContentError, match=r"__torch__\.M"):
        read_plain(content, no_storages)
    with pytest.raises(UnsafeContentError, match="__setstate__"):
        read_plain(content.replace(b"}X\x01\0\0\0aK\x01s", b"]"), no_storages, records=True)
