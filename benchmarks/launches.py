"""The launches that the operators make, recorded instead of run: what the static report compiles, drift excluded.

Tensors are on PyTorch's meta device, so shapes of any size cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

from mote_fast.kernels import expert_ffn, factored_adamw, merge, quick_gelu, routed_ffn
from mote_fast.kernels.reference import expert_size
from mote_fast.kernels.tiles import MatrixTile, VectorTile


@dataclass(frozen=True)
class Launch:
    """One kernel launch: the kernel, its grid, its arguments in order and its options."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[object, ...]
    warps: int
    stages: int


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Record launches instead of making them."""
    launches: list[Launch] = []

    def record(kernel: Any, grid: tuple[int, ...], *args: object, warps: int, stages: int = 1) -> None:
        if 0 not in grid:
            launches.append(Launch(kernel, grid, args, warps, stages))

    with ExitStack() as replaced:
        for module in (merge, expert_ffn, routed_ffn, factored_adamw, quick_gelu):
            replaced.enter_context(patch.object(module, "launch", record))
        yield launches


@dataclass(frozen=True)
class Shape:
    """Sizes of one layer's experts in training: d, clips, frames and E."""

    width: int
    clips: int
    frames: int
    experts: int

    @property
    def tokens(self) -> int:
        """N, tokens of one stream."""
        return self.clips * self.frames


# Training shapes of the method (docs/method.md, Optimisation): batch 64 and 48 per GPU, 8 frames, 4 experts.
VIT_B_16 = Shape(512, 64, 8, 4)
VIT_L_14 = Shape(768, 48, 8, 4)


NAMES: dict[str, tuple[str, ...]] = {
    "pair": ("rows", "up", "down", "dpre", "dw_down", "dw_up", "dx"),
    "routed": ("group", "up", "down", "dpre", "dw_down", "dw_up", "dx"),
    "merge": ("forward", "backward", "backward_weights", "expand"),
    "adamw": ("one", "two", "device"),
    "quick_gelu": ("forward", "backward"),
}


def launches_of(
    operator: str,
    shape: Shape,
    activation: torch.dtype,
    master: torch.dtype,
    tile: MatrixTile | None = None,
    vector: VectorTile | None = None,
) -> dict[str, Launch]:
    """The launches of an operator, a key of ``NAMES``, by name.

    The pair, the routed FFN and QuickGELU go forward and backward. The merge has two forms of its gradient, and the
    gradient's expansion. The optimiser has one launch for one and for two micro-batches, numbers by value and on the
    device.
    """
    size = expert_size(shape.width)
    with recorded() as launches, torch.device("meta"):
        x = torch.empty(shape.clips, shape.frames, shape.width, dtype=activation)
        stack, row = torch.empty(shape.experts, size, dtype=master), torch.empty(size, dtype=master)
        merged, weights, number = torch.empty(size, dtype=activation), torch.empty(shape.experts), torch.empty(())
        index = torch.empty((), dtype=torch.int64)
        match operator:
            case "pair":
                x = x.flatten(0, 1)
                *_, saved, rows = expert_ffn.expert_pair_forward(x, x, stack, weights, index, tile)
                expert_ffn.expert_pair_backward(x, x, x, x, stack, rows, index, saved, tile=tile)
            case "routed":
                chosen = index.expand(shape.clips).contiguous()
                _, saved = routed_ffn.routed_forward(x, stack, chosen, tile)
                routed_ffn.routed_backward(x, x, stack, chosen, saved, tile=tile)
            case "merge":
                merge.merge_experts_forward(stack, weights, activation)
                merge.merge_experts_backward(merged, weights, out_dtype=master)
                merge.merge_experts_backward(merged, weights, stack)
                merge.expand_expert_gradient(row, row, weights, index)
            case "quick_gelu":
                quick_gelu.quick_gelu_backward(quick_gelu.quick_gelu_forward(x), x)
            case _:
                adamw = partial(factored_adamw.adamw_factored, stack, stack, stack, tile=vector)
                factor = (row, row, weights, index)
                adamw([factor], 1, 1e-4)
                adamw([factor] * 2, 1, 1e-4, grad_scale=number)
                adamw([factor], number, number, grad_scale=number)
    return dict(zip(NAMES[operator], launches, strict=True))
