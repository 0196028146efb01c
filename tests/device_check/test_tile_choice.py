"""Tiles by force: every one of a table is run, and the table is as before afterwards."""

from __future__ import annotations

import pytest
import torch

from mote_fast.device_check.tile_choice import only_tiles, tile_pairs
from mote_fast.kernels.tiles import MATRIX_TILES, matrix_tile

CPU = torch.device("cpu")


@pytest.mark.parametrize(("dtype", "itemsize"), [(torch.float16, 2), (torch.float32, 4)])
def test_each_tile_in_turn(dtype: torch.dtype, itemsize: int) -> None:
    """All shapes take the tile of the turn; without one, the shape decides again."""
    few, many = torch.empty(8, 512, dtype=dtype), torch.empty(4096, 512, dtype=dtype)
    before = [matrix_tile("linear", x, len(x), 2048) for x in (few, many)]
    pairs = tile_pairs(CPU, itemsize)
    table = MATRIX_TILES["sm_90"]
    assert {pair.linear for pair in pairs} == set(table["linear"][itemsize])
    assert {pair.gradient for pair in pairs} == set(table["gradient"][itemsize])
    for pair in pairs:
        with only_tiles(pair, CPU, itemsize):
            for x in (few, many):
                assert matrix_tile("linear", x, len(x), 2048) == pair.linear
                assert matrix_tile("gradient", x, 512, 2048, groups=2) == pair.gradient
    assert [matrix_tile("linear", x, len(x), 2048) for x in (few, many)] == before
