"""Tile tables: every entry is usable, and the choice follows the cost model."""

from __future__ import annotations

import pytest
import torch

from mote_fast.kernels.tiles import MATRIX_TILES, UNALIGNED_TILES, MatrixTile, family_of, matrix_tile, readable_wide

EVERY_TILE = [
    *(tile for family in MATRIX_TILES.values() for kinds in family.values() for t in kinds.values() for tile in t),
    *(tile for family in UNALIGNED_TILES.values() for tile in family.values()),
]


@pytest.mark.parametrize("tile", sorted(set(EVERY_TILE)), ids=str)
def test_sizes_are_powers_of_two_that_a_tensor_core_takes(tile: MatrixTile) -> None:
    """tl.dot wants at least 16 of each; arange wants powers of two."""
    for size in tile[:3]:
        assert size >= 16
        assert size & (size - 1) == 0


def test_families() -> None:
    """Consumer GPUs of every generation have the shared memory of sm_86."""
    families = {c: family_of(c) for c in ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0))}
    assert list(families.values()) == ["sm_80", "sm_80", "sm_80", "sm_90", "sm_100", "sm_100", "sm_80"]


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def test_small_products_get_small_tiles() -> None:
    """The down-projection of ViT-B/16 must not leave three of four processors without work."""
    x = (meta(512, 512),)
    assert matrix_tile("linear", x, 512, 2048, groups=2)[:2] == (128, 128)
    assert matrix_tile("linear", x, 512, 512, groups=2)[:2] == (64, 64)


def test_operands_that_cannot_be_read_wide_get_their_own_tile() -> None:
    """Transposed, oddly strided and oddly placed tensors."""
    x = meta(64, 512)
    assert readable_wide(x, x[:, :256], x[3:])
    assert not readable_wide(meta(512, 64).t())
    assert not readable_wide(meta(64, 513)[:, :512])
    assert not readable_wide(torch.empty(64 * 16 + 1)[1:].view(64, 16))
    assert matrix_tile("linear", (meta(512, 64).t(),), 64, 2048) == UNALIGNED_TILES["sm_90"][2]
