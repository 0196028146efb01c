"""Launches of one layer's experts, and the bytes that they name: the Triton kernels beside products of cuBLAS.

    python benchmarks/cublas_counts.py

The second is the implementation in plain PyTorch, but the merge kernel makes both experts' rows. For each launch the
bytes of its arguments and results are added up, each once. Tensors are on PyTorch's meta device: nothing is computed.
The table is in docs/kernels.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from launches import VIT_B_16, VIT_L_14, Shape, launches_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mote_fast.kernels.reference import expert_size
from mote_fast.ops.implementations import launchers

FORWARD = ("rows", "up", "down")


class Count(NamedTuple):
    """Launches and the bytes of their arguments and results."""

    launches: int
    moved: int


class Operations(TorchDispatchMode):
    """Records the tensors of every operation that runs something on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[list[Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        views = any(result.alias_info and not result.alias_info.is_write for result in func._schema.returns)
        if not views and "empty" not in str(func):
            # A result that is written into an argument is that argument.
            found = {id(x): x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)}
            self.tensors.append(list(found.values()))
        return out


def added(launches: list[list[Tensor]]) -> Count:
    """Add up launches, each given by its tensors."""
    return Count(len(launches), sum(tensor.nbytes for tensors in launches for tensor in tensors))


def of_triton(shape: Shape, activation: torch.dtype, forward: bool) -> Count:
    """Count the launches of one direction of the pair."""
    pair, size = launches_of("pair", shape, activation, torch.float32), expert_size(shape.width)
    launches = []
    for name, launch in pair.items():
        if (name in FORWARD) == forward:
            tensors = [x for x in tree_leaves(launch.args) if isinstance(x, Tensor)]
            # A product reads or writes one of the two matrices of an expert.
            launches.append([x[:, : size // 2] if name != "rows" and x.shape == (2, size) else x for x in tensors])
    return added(launches)


def of_cublas(shape: Shape, activation: torch.dtype) -> tuple[Count, Count]:
    """Count the operations of the pair in plain PyTorch, forward and backward, with the merge kernel's launch."""
    module, size = launchers("expert_ffn", "torch"), expert_size(shape.width)
    with torch.device("meta"):
        x, y = torch.empty(2, shape.tokens, shape.width, dtype=activation)
        stack, weights = torch.empty(shape.experts, size), torch.empty(shape.experts)
        index = torch.empty((), dtype=torch.int64)
        with Operations() as forward:
            *_, saved, rows = module.expert_pair_forward(x, y, stack, weights, index)
        with Operations() as backward:
            module.expert_pair_backward(x, y, x, y, stack, rows, index, saved)
    # The merge kernel stands for the operations on whole experts.
    others = [tensors for tensors in forward.tensors if not any(x.ndim and size in x.shape for x in tensors)]
    products, merge = added(others), added([[stack, weights, index, rows]])
    return Count(products.launches + 1, products.moved + merge.moved), added(backward.tensors)


def lines() -> Iterator[str]:
    """Yield the table in Markdown."""
    yield "| one layer, 16-bit over float32 | Triton: launches, MB | cuBLAS and the merge kernel |"
    yield "|---|---|---|"
    for name, shape in (("ViT-B/16", VIT_B_16), ("ViT-L/14", VIT_L_14)):
        theirs = of_cublas(shape, torch.bfloat16)
        for direction, count in zip(("forward", "backward"), theirs, strict=True):
            mine = of_triton(shape, torch.bfloat16, direction == "forward")
            cells = (f"{each.launches}, {each.moved / 1e6:.1f}" for each in (mine, count))
            yield f"| {name} {direction} | {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(lines()))
