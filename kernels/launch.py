"""The one place where kernels are launched from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def launch(kernel: Any, grid: tuple[int, ...], anchor: Tensor, *args: object, warps: int, stages: int = 1) -> None:
    """Run ``kernel`` on the device of ``anchor``, its first argument; an empty grid launches nothing.

    Args:
        kernel: a function under ``triton.jit`` (whose type does not know launch options).
        grid: programs per axis.
        anchor: the kernel's first argument.
        args: its other arguments.
        warps: warps per program.
        stages: stages of its pipelined loops.
    """
    if 0 in grid:
        return
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device_of(anchor):
        kernel[grid](anchor, *args, num_warps=warps, num_stages=stages)
