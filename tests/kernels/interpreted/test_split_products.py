"""Split products: the sum does not depend on which program ends last, and every part is in it."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder

from mote_fast.kernels.expert_ffn import _narrow, expert_pair_backward, expert_pair_forward
from mote_fast.kernels.reference import expert_size
from mote_fast.kernels.tiles import MAX_SPLIT_TILES, MatrixTile
from tests.tolerances import assert_close

# Two tiles of tokens and two of columns, both cut short.
WIDTH, TOKENS, TILE = 48, 36, MatrixTile(32, 32, 32, 4, 2)


def outputs(tile: MatrixTile) -> list[Tensor]:
    """Values and gradients of a pair of experts, products split as the tile says."""
    generator = torch.Generator().manual_seed(0)
    x, dy = torch.randn(2, TOKENS, WIDTH, generator=generator)
    experts, weights = torch.randn(2, expert_size(WIDTH), generator=generator) / 8, torch.tensor([0.3, 0.7])
    index = torch.tensor(1)
    *y, saved, rows = expert_pair_forward(x, x, experts, weights, index, tile)
    return [*y, *expert_pair_backward(dy, dy, x, x, experts, rows, index, saved, tile=tile)]


@pytest.fixture(scope="module")
def whole() -> list[Tensor]:
    return outputs(TILE)


# 192 values in steps of 32: two parts of three steps; three of two and a part of none; the last has fewer.
@pytest.mark.parametrize("parts", [2, 3, 4, 5])
def test_parts_may_end_in_any_order(parts: int, whole: list[Tensor]) -> None:
    """The same bits whether the first part or the last one ends last, and the sum of the whole product."""
    tile = TILE._replace(parts=parts)
    set_grid_idx = InterpreterBuilder.set_grid_idx

    def backwards(self: Any, x: int, y: int, z: int) -> None:
        set_grid_idx(self, x, y, self.grid_dim[2] - 1 - z)

    forwards = outputs(tile)
    with patch.object(InterpreterBuilder, "set_grid_idx", backwards):
        assert all(torch.equal(*pair) for pair in zip(outputs(tile), forwards, strict=True))
    for mine, sum_of_all in zip(forwards, whole, strict=True):
        assert_close(mine, sum_of_all, "kernel float32")


def test_many_tiles_are_not_split() -> None:
    """There are so many counters and no more."""
    tokens = 16 * (MAX_SPLIT_TILES // 2 + 1)
    x, tile = torch.empty(tokens, 16, device="meta"), MatrixTile(16, 16, 16, 4, 1, 2)
    assert _narrow(x, tile)[1:] == (None, None)
    assert _narrow(x[:-16], tile)[2] is not None
