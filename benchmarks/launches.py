"""The launches that the operators make, recorded instead of run: what the static report compiles, drift excluded.

Tensors are on PyTorch's meta device, so shapes of any size cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mote_fast.kernels import expert_ffn, factored_adamw, merge, routed_ffn
from mote_fast.kernels.reference import expert_size
from mote_fast.kernels.tiles import MatrixTile, VectorTile

MODULES: tuple[ModuleType, ...] = (merge, expert_ffn, routed_ffn, factored_adamw)


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

    originals = [module.launch for module in MODULES]
    try:
        for module in MODULES:
            module.launch = record  # pyright: ignore[reportAttributeAccessIssue]
        yield launches
    finally:
        for module, original in zip(MODULES, originals, strict=True):
            module.launch = original  # pyright: ignore[reportAttributeAccessIssue]


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


def empty(*shape: int, dtype: torch.dtype, device: str = "meta") -> Tensor:
    return torch.empty(shape, dtype=dtype, device=device)


def pair_launches(
    shape: Shape, activation: torch.dtype, master: torch.dtype, tile: MatrixTile | None = None
) -> dict[str, Launch]:
    """The six matrix launches of the expert pair, forward and backward, by name."""
    x = empty(shape.tokens, shape.width, dtype=activation)
    experts = empty(shape.experts, expert_size(shape.width), dtype=master)
    merged = empty(expert_size(shape.width), dtype=activation)
    index = empty(dtype=torch.int64)
    with recorded() as launches:
        *_, saved = expert_ffn.expert_pair_forward(x, x, experts, merged, index, tile)
        expert_ffn.expert_pair_backward(x, x, x, x, experts, merged, index, saved, tile=tile)
    return dict(zip(("up", "down", "dpre", "dw_down", "dw_up", "dx"), launches, strict=True))


def routed_launches(
    shape: Shape, activation: torch.dtype, master: torch.dtype, tile: MatrixTile | None = None
) -> dict[str, Launch]:
    """The launches of the routed FFN, forward and backward, by name."""
    x = empty(shape.clips, shape.frames, shape.width, dtype=activation)
    experts = empty(shape.experts, expert_size(shape.width), dtype=master)
    index = empty(shape.clips, dtype=torch.int64)
    with recorded() as launches:
        _, saved = routed_ffn.routed_forward(x, experts, index, tile)
        routed_ffn.routed_backward(x, x, experts, index, saved, tile=tile)
    return dict(zip(("group", "up", "down", "dpre", "dw_down", "dw_up", "dx"), launches, strict=True))


def merge_launches(shape: Shape, master: torch.dtype, merged: torch.dtype) -> dict[str, Launch]:
    """The launches of the merge, of both forms of its gradient, and of the gradient's expansion."""
    size = expert_size(shape.width)
    experts, weights = empty(shape.experts, size, dtype=master), empty(shape.experts, dtype=torch.float32)
    grad = empty(size, dtype=merged)
    g = empty(size, dtype=master)
    with recorded() as launches:
        merge.merge_experts_forward(experts, weights, merged)
        merge.merge_experts_backward(grad, weights, out_dtype=master)
        merge.merge_experts_backward(grad, weights, experts)
        merge.expand_expert_gradient(g, g, weights, empty(dtype=torch.int64))
    return dict(zip(("forward", "backward", "backward_weights", "expand"), launches, strict=True))


def adamw_launches(shape: Shape, master: torch.dtype, tile: VectorTile | None = None) -> dict[str, Launch]:
    """The optimiser's launch for one and for two micro-batches, numbers by value and on the device."""
    size = expert_size(shape.width)
    stack, row = empty(shape.experts, size, dtype=master), empty(size, dtype=master)
    factor = (row, row, empty(shape.experts, dtype=torch.float32), empty(dtype=torch.int64))
    number = empty(dtype=torch.float32)
    runs: dict[str, Callable[[], None]] = {
        "one": lambda: factored_adamw.adamw_factored(stack, stack, stack, [factor], 1, 1e-4, tile=tile),
        "two": lambda: factored_adamw.adamw_factored(
            stack, stack, stack, [factor] * 2, 1, 1e-4, grad_scale=number, tile=tile
        ),
        "device": lambda: factored_adamw.adamw_factored(
            stack, stack, stack, [factor], number, number, grad_scale=number, tile=tile
        ),
    }
    found = {}
    for name, run in runs.items():
        with recorded() as launches:
            run()
        (found[name],) = launches
    return found
