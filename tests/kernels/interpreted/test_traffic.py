"""The traffic counter: it must agree with formulas written from the dataflow, and its L2 with cases done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from traffic import LINE, Access, Program, Traffic, counted

from mote_fast.kernels.expert_ffn import expert_pair_backward, expert_pair_forward
from mote_fast.kernels.merge import merge_and_route, merge_experts_forward
from mote_fast.kernels.reference import expert_size
from mote_fast.kernels.tiles import MatrixTile


@pytest.mark.parametrize(("tokens", "width"), [(16, 16), (37, 48), (70, 80), (1, 64)])
@pytest.mark.parametrize("tile", [MatrixTile(32, 64, 32, 4, 2), MatrixTile(64, 32, 16, 4, 2)])
def test_requested_bytes_of_the_pair(tokens: int, width: int, tile: MatrixTile) -> None:
    """Every tile of columns reads the tokens again, every tile of tokens the weights: docs/kernels.md."""
    experts = torch.zeros(2, expert_size(width))
    x = torch.zeros(tokens, width, dtype=torch.float16)
    with counted() as traffic:
        expert_pair_forward(x, x, experts, torch.zeros(2), torch.tensor(1), tile)
    with counted() as rows:
        merge_and_route(experts, torch.zeros(2), torch.tensor(1), x.dtype)
    token_tiles = -(-tokens // tile.rows)
    hidden = 4 * width
    # The pre-activations are stored beside QuickGELU of them.
    expected = rows.requested + 2 * tokens * hidden * 2
    for inner, outer in ((width, hidden), (hidden, width)):
        column_tiles = -(-outer // tile.columns)
        read = column_tiles * tokens * inner + token_tiles * (outer * inner + outer)
        expected += 2 * 2 * (read + tokens * outer)
    assert traffic.requested == expected


@pytest.mark.parametrize(("count", "size"), [(1, 1000), (4, 4096), (16, 5000)])
def test_requested_bytes_of_the_merge(count: int, size: int) -> None:
    """Every weight once, the row once, and the merge weights once per program."""
    experts = torch.zeros(count, size)
    with counted() as traffic:
        merge_experts_forward(experts, torch.zeros(count), torch.float16)
    programs = -(-size // 1024)
    assert (traffic.loaded, traffic.stored) == (4 * count * size + 4 * count * programs, 2 * size)


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
