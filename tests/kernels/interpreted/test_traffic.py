"""The traffic counter: it must agree with formulas written from the dataflow, and its L2 with cases done by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from traffic_count import LINE, Access, Program, Traffic, counted

from mote_fast.kernels.expert_ffn import expert_pair_backward, expert_pair_forward
from mote_fast.kernels.factored_adamw import adamw_factored
from mote_fast.kernels.merge import merge_and_route, merge_experts_backward, merge_experts_forward
from mote_fast.kernels.quick_gelu import quick_gelu_backward, quick_gelu_forward
from mote_fast.kernels.reference import expert_size
from mote_fast.kernels.routed_ffn import routed_backward, routed_forward
from mote_fast.kernels.tiles import MAX_SPLIT_TILES, MatrixTile
from tests.kernels.product_bytes import linear_bytes, weight_gradient_bytes

TILES = [MatrixTile(32, 64, 32, 4, 2), MatrixTile(64, 32, 16, 4, 2), MatrixTile(32, 32, 16, 4, 2, parts=3)]


@pytest.mark.parametrize(("tokens", "width"), [(16, 16), (37, 48), (70, 80), (1, 64)])
@pytest.mark.parametrize("tile", TILES)
def test_requested_bytes_of_the_pair(tokens: int, width: int, tile: MatrixTile) -> None:
    """Every tile of columns reads the tokens again, every tile of tokens the weights: docs/kernels.md."""
    experts, weights, index = torch.zeros(2, expert_size(width)), torch.zeros(2), torch.tensor(1)
    x = torch.zeros(tokens, width, dtype=torch.float16)
    with counted() as forward:
        *_, saved, kept = expert_pair_forward(x, x, experts, weights, index, tile)
    with counted() as rows:
        merge_and_route(experts, weights, index, x.dtype)
    with counted() as backward:
        expert_pair_backward(x, x, x, x, experts, kept, index, saved, tile=tile)
    up, down, wide = (width, 4 * width), (4 * width, width), tile._replace(parts=1)
    # The launch before one that is split clears its counters.
    cleared = 4 * MAX_SPLIT_TILES if tile.parts > 1 else 0
    # QuickGELU of the pre-activations and its derivative are stored.
    products = linear_bytes(tokens, up, wide, 2, bias=True, outputs=2) + linear_bytes(tokens, down, tile, 2, bias=True)
    assert forward.requested == rows.requested + 2 * products + cleared
    # The derivative is a factor of the gradient of the pre-activations.
    products = linear_bytes(tokens, up, wide, 2, factor=True) + linear_bytes(tokens, down, tile, 2)
    gradients = weight_gradient_bytes(tokens, down, wide, 2, 4) + weight_gradient_bytes(tokens, up, wide, 2, 4)
    assert backward.requested == 2 * (products + gradients) + cleared


@pytest.mark.parametrize(("count", "size"), [(1, 1000), (4, 4096), (16, 5000)])
def test_requested_bytes_of_the_merge(count: int, size: int) -> None:
    """Every weight once, the row once, and the merge weights once per program."""
    experts = torch.zeros(count, size)
    with counted() as traffic:
        merge_experts_forward(experts, torch.zeros(count), torch.float16)
    programs = -(-size // 1024)
    assert (traffic.loaded, traffic.stored) == (4 * count * size + 4 * count * programs, 2 * size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(3, 100), (17, 4, 64), (0, 8)])
def test_requested_bytes_of_quick_gelu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Input and output forward; input and both gradients backward."""
    x = torch.zeros(shape, dtype=dtype)
    with counted() as forward:
        quick_gelu_forward(x)
    with counted() as backward:
        quick_gelu_backward(x, x)
    assert (forward.loaded, forward.stored) == (x.nbytes, x.nbytes)
    assert (backward.loaded, backward.stored) == (2 * x.nbytes, x.nbytes)


def pair(tokens: int, width: int) -> None:
    experts, x = torch.zeros(3, expert_size(width)), torch.zeros(2, tokens, width)
    for tile in (TILES[0], TILES[2]):
        *_, saved, rows = expert_pair_forward(*x, experts, torch.zeros(3), torch.tensor(2), tile)
        expert_pair_backward(*x, *x, experts, rows, torch.tensor(2), saved, tile=tile)


def routed(tokens: int, width: int) -> None:
    experts, x, index = torch.zeros(3, expert_size(width)), torch.zeros(5, tokens, width), torch.tensor([2, 0, 2, 2, 0])
    _, saved = routed_forward(x, experts, index, TILES[1])
    routed_backward(x, x, experts, index, saved, tile=TILES[1])


def vectors(tokens: int, width: int) -> None:
    experts, weights, grad = torch.zeros(3, tokens * width), torch.zeros(3), torch.zeros(tokens * width)
    merge_experts_backward(grad, weights, experts)
    adamw_factored(experts, experts, experts, [(grad, grad, weights, torch.tensor(1))], 1, 1e-4)
    quick_gelu_backward(grad, grad)


@pytest.mark.parametrize("run", [pair, routed, vectors])
def test_programs_counted_at_once_are_those_counted_alone(run: Callable[[int, int], None]) -> None:
    """Each program's accesses, in their order, also where programs differ in a condition or in the bounds of a loop."""
    with counted(batch=1) as alone:
        run(37, 48)
    with counted() as together:
        run(37, 48)
    assert (together.loaded, together.stored) == (alone.loaded, alone.stored)
    assert max(map(len, alone.launches)) > 1
    assert [in_order(launch) for launch in together.launches] == [in_order(launch) for launch in alone.launches]


def in_order(launch: list[Program]) -> list[list[tuple[list[int], bool, bool]]]:
    """The accesses of a launch, lines numbered as they first appear: tensors of two runs lie at different addresses."""
    numbers: dict[int, int] = {}
    return [
        [([numbers.setdefault(line, len(numbers)) for line in a.lines.tolist()], *a[1:]) for a in accesses]
        for accesses in launch
    ]


def program(*accesses: tuple[list[int], bool]) -> Program:
    return [Access(np.array(lines, np.uint64), written) for lines, written in accesses]


def test_l2_keeps_lines_by_last_use() -> None:
    """Two lines fit: the third read evicts the oldest, a hit renews a line, a written line goes back once."""
    reads = [program(([1], False), ([2], False), ([1], False), ([3], False), ([1], False), ([2], False))]
    assert Traffic([reads]).dram(l2_bytes=2 * LINE) == 4 * LINE
    assert Traffic([reads]).dram(l2_bytes=3 * LINE) == 3 * LINE
    rewritten = [program(([1], True), ([1], True), ([2], False), ([3], False))]
    assert Traffic([rewritten]).dram(l2_bytes=2 * LINE) == 3 * LINE


def test_hinted_stores_leave_first() -> None:
    """A gradient stored with evict_first goes before an older line that is read again."""
    accesses = [Access(np.array([line], np.uint64), line == 2, line == 2) for line in (1, 2, 3, 1)]
    assert Traffic([[accesses]]).dram(l2_bytes=2 * LINE) == 3 * LINE


@pytest.mark.parametrize("expanded", [False, True])
def test_gradients_leave_first_unless_the_next_launch_reads_them(expanded: bool) -> None:
    """The expansion to all experts reads both rows of weight gradients; the optimiser reads them much later."""
    experts, weights, index = torch.zeros(2, expert_size(32)), torch.zeros(2), torch.tensor(1)
    x = torch.zeros(16, 32, dtype=torch.float16)
    *_, saved, rows = expert_pair_forward(x, x, experts, weights, index)
    with counted() as traffic:
        expert_pair_backward(x, x, x, x, experts, rows, index, saved, expanded)
    hinted = sum(LINE * len(a.lines) for launch in traffic.launches for each in launch for a in each if a.leaves_first)
    assert hinted == (0 if expanded else 2 * 2 * 4 * 32 * 32 * 4)


def test_programs_take_turns() -> None:
    """Two programs that share a line fetch it once side by side, twice one after the other in a one-line L2."""
    pair = [program(([1], False), ([2], False)), program(([1], False), ([2], False))]
    assert Traffic([pair]).dram(l2_bytes=LINE, processors=2) == 2 * LINE
    assert Traffic([pair]).dram(l2_bytes=LINE, processors=1) == 4 * LINE
