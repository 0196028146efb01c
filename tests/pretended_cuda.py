"""CUDA without a GPU: tensors without memory that Python takes for CUDA tensors, and a record of what moves to them.

The tensors lie on PyTorch's meta device: reading one on the host raises, which is the check that nothing does. They
cannot show autocast, whose rules for CUDA need a device.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mote_fast.data import transforms
from mote_fast.runtime import device_copy

CUDA, META = torch.device("cuda", 0), torch.device("meta")

# Functions that make a tensor of numbers: given a device, they copy it there and wait.
_ENGINE = torch.autograd.graph._engine_run_backward
# PyTorch has no kernel without memory for these.
_IN_PLACE: tuple[Any, ...] = (
    torch.ops.aten._fused_adamw_.default,
    torch.ops.aten._fused_adamw_.tensor_lr,
    torch.ops.aten._amp_foreach_non_finite_check_and_unscale_.default,
    torch.ops.aten._amp_update_scale_.default,
)
_FROM_NUMBERS: tuple[Any, ...] = (torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor)


class _Stream:
    """A stream of work, which knows the streams that it waits for."""

    def __init__(self, device: object = None) -> None:
        del device
        self.waited_for: list[_Stream] = []

    def wait_stream(self, other: _Stream) -> None:
        self.waited_for.append(other)


class Moves:
    """What moved from the host to the device.

    Attributes:
        blocking: the copies for which the host waits, by the place in the library that asked for them.
        started: the other copies, in the same way.
        beside: number of copies on another stream than that which computes.
        held: number of tensors of other streams whose memory waits for the stream that computes.
        operators: number of operators on device tensors.
    """

    def __init__(self) -> None:
        self.blocking: Counter[str] = Counter()
        self.started: Counter[str] = Counter()
        self.beside = self.held = self.operators = 0
        self.stream = _Stream()
        self.current = self.stream
        self.pinned: set[int] = set()

    def clear(self) -> None:
        """Forget what moved so far."""
        self.blocking.clear()
        self.started.clear()
        self.beside = self.held = self.operators = 0

    @contextmanager
    def on(self, stream: _Stream) -> Iterator[None]:
        """Take ``stream`` as the current one."""
        before, self.current = self.current, stream
        yield
        self.current = before

    def hold(self, tensor: Tensor, stream: _Stream) -> None:
        """Count a tensor whose memory waits for a stream."""
        del tensor
        self.held += stream is self.stream

    def note(self, source: Tensor, non_blocking: bool) -> None:
        """Count one copy: a copy from memory that is not pinned makes the host wait, whatever was asked for."""
        kind = self.started if non_blocking and source.untyped_storage()._cdata in self.pinned else self.blocking
        kind[_place()] += 1
        self.beside += self.current is not self.stream


class _Requests(TorchFunctionMode):
    """Takes requests for CUDA as requests for meta, and pinned memory as any other."""

    def __init__(self, moves: Moves) -> None:
        super().__init__()
        self.moves = moves

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given: dict[str, Any] = dict(kwargs or {})
        if func is torch.Tensor.pin_memory:
            return self._pin(args[0].clone())
        pinned = given.pop("pin_memory", False)
        if func is not torch.device and "autocast" not in getattr(func, "__name__", ""):
            args = tuple(tree_map(_real, args))
            given = {name: tree_map(_real, value) for name, value in given.items()}
        if func in _FROM_NUMBERS and not isinstance(args[-1], Tensor) and given.get("device") == META:
            numbers: Any = func(*args, **{**given, "device": "cpu"})
            return numbers.to(META)
        found: Any = func(*args, **given)
        return self._pin(found) if pinned else found

    def run_backward(self, *args: Any, **kwargs: Any) -> Any:
        """Run a backward pass within the mode, which is off within its own handler of ``Tensor.backward``."""
        with self:
            return _ENGINE(*args, **kwargs)

    def _pin(self, tensor: Tensor) -> Tensor:
        self.moves.pinned.add(tensor.untyped_storage()._cdata)
        # Kept, so that no later storage has its address.
        _KEPT.append(tensor)
        return tensor


class _Transfers(TorchDispatchMode):
    """Records the copies between host and device, also those that operators make of indices."""

    def __init__(self, moves: Moves) -> None:
        super().__init__()
        self.moves = moves

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        in_place = func in _IN_PLACE
        # PyTorch's own code for meta tensors must see what they are.
        with patch.object(_Shown, "cuda", False):
            out = None if in_place else func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        results = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        with torch._C.DisableTorchFunction():
            assert not in_place or all(each.is_meta for each in tensors)
            self.moves.operators += any(each.is_meta for each in results)
            name = func.__name__
            on_host = [each for each in tensors if not each.is_meta and each.ndim]
            moves = name.startswith(("_to_copy", "copy_", "index")) and any(each.is_meta for each in results)
            for source in on_host if moves else ():
                at = args[2] if name.startswith("copy_") and len(args) > 2 else (kwargs or {}).get("non_blocking")
                self.moves.note(source, bool(at))
            if name.startswith("_to_copy") and not tensors[0].ndim and not tensors[0].is_meta and results[0].is_meta:
                self.moves.note(tensors[0], bool((kwargs or {}).get("non_blocking")))
        return out


_KEPT: list[Tensor] = []


class _Shown:
    """Whether meta tensors show as CUDA tensors."""

    cuda = True


def _shown_device(tensor: Tensor) -> torch.device:
    return CUDA if _Shown.cuda and tensor.is_meta else torch._C.TensorBase.device.__get__(tensor)  # pyright: ignore[reportAttributeAccessIssue]


def _real(value: object) -> object:
    if isinstance(value, torch.device) and value.type == "cuda":
        return META
    return META if isinstance(value, str) and value.startswith("cuda") else value


def _place() -> str:
    """The innermost line of the library on the stack."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        _, inside, file = frame.f_code.co_filename.rpartition("/mote_fast/")
        if inside:
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return "autograd"


@contextmanager
def pretended_cuda() -> Iterator[Moves]:
    """Take CUDA tensors as present; yields the record of what moves."""
    moves = Moves()
    requests = _Requests(moves)
    transforms.constants_on.cache_clear()
    device_copy._copies_on.cache_clear()
    capability: Callable[..., tuple[int, int]] = lambda *_: (9, 0)  # noqa: E731
    with (
        # Not by the mode, which PyTorch's own code for meta tensors would be within too.
        patch.object(Tensor, "device", property(_shown_device), create=True),
        patch.object(Tensor, "is_cuda", property(lambda tensor: _Shown.cuda and tensor.is_meta), create=True),
        patch.object(torch.cuda, "is_available", lambda: True),
        patch.object(torch.cuda, "get_device_capability", capability),
        patch.object(Tensor, "record_stream", lambda tensor, stream: moves.hold(tensor, stream), create=True),
        patch.object(torch.cuda, "Stream", _Stream),
        patch.object(torch.cuda, "stream", moves.on),
        patch.object(torch.cuda, "current_stream", lambda device: moves.current),
        patch.object(torch.autograd, "_engine_run_backward", requests.run_backward),
        _Transfers(moves),
        requests,
    ):
        yield moves
    transforms.constants_on.cache_clear()
    device_copy._copies_on.cache_clear()
    _KEPT.clear()
