"""Kernel launch helper."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mote_fast.errors import ShapeError
from mote_fast.kernels.tiles import readable_wide

# Whether ``launch`` only compiles.
_COMPILES: ContextVar[bool] = ContextVar("compiles", default=False)


@contextmanager
def compiling(threads: int) -> Iterator[None]:
    """Let ``launch`` compile kernels, several at a time, and run none of them; all are done at the end.

    What fails to compile fails again when it is launched. Launches of other threads, such as those of autograd's, run.

    Args:
        threads: kernels that are compiled at a time.
    """
    # The helpers of this module serve without it.
    import triton

    with ThreadPoolExecutor(threads) as pool, triton.AsyncCompileMode(pool, ignore_errors=True):
        before = _COMPILES.set(True)
        try:
            yield
        finally:
            _COMPILES.reset(before)


class Tokens(NamedTuple):
    """A matrix of tokens for a kernel, given as one argument: pointer, order of samples, strides.

    Attributes:
        tensor: the pointer.
        order: int32 [B], the sample at each place; None where the rows are in the kernel's order already.
        sample: stride of samples, where there is an order.
        row: stride of tokens.
    """

    tensor: Tensor
    order: Tensor | None
    sample: int
    row: int


def with_wide_rows(x: Tensor) -> Tensor:
    """Return ``x``, copied unless its rows can be read 128 bits at a time: one copy is cheaper than slow products."""
    return x if readable_wide(x) else x.clone(memory_format=torch.contiguous_format)


def dense(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors contiguous: the launchers call it for what their kernels address without strides."""
    return tuple(tensor.contiguous() for tensor in tensors)


def check_dense(**tensors: Tensor) -> None:
    """Raise ShapeError unless tensors that a kernel writes are contiguous: a copy of one would get the result."""
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ShapeError(f"{name} must be contiguous, got strides {tensor.stride()} for {list(tensor.shape)}")


def launch(
    kernel: Any, grid: tuple[int, ...], anchor: Tensor | tuple[Any, ...], *args: object, warps: int, stages: int = 1
) -> None:
    """Run ``kernel`` on the device of ``anchor``, its first argument; an empty grid launches nothing.

    Args:
        kernel: a function under ``triton.jit`` (whose type does not know launch options).
        grid: programs per axis.
        anchor: the kernel's first argument, a tensor or a tuple that starts with one.
        args: its other arguments.
        warps: warps per program.
        stages: stages of its pipelined loops.
    """
    if 0 in grid:
        return
    # Triton launches on the current device, which may differ from the tensors' device.
    with torch.cuda.device_of(anchor if isinstance(anchor, Tensor) else anchor[0]):
        if _COMPILES.get():
            kernel.warmup(anchor, *args, grid=grid, num_warps=warps, num_stages=stages)
        else:
            kernel[grid](anchor, *args, num_warps=warps, num_stages=stages)
