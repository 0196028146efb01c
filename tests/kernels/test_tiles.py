"""Tile tables: every entry is usable, and the choice follows the cost model."""

from __future__ import annotations

import pytest
import torch

from mote_fast.kernels.launch import with_wide_rows
from mote_fast.kernels.tiles import MATRIX_TILES, MatrixTile, cheapest, family_of, matrix_tile, readable_wide

EVERY_TILE = [
    tile for family in MATRIX_TILES.values() for kinds in family.values() for t in kinds.values() for tile in t
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
    x = meta(512, 512)
    assert matrix_tile("linear", x, 512, 2048, groups=2)[:2] == (128, 128)
    assert matrix_tile("linear", x, 512, 512, groups=2)[:2] == (64, 64)


def test_a_device_is_asked_for_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-L/14's down-projection makes 144 tiles of 64 x 64: two rounds on 132 processors, one on 144."""
    assert cheapest("linear", "sm_90", 132, 2, 384, 768, 2)[:2] == (64, 128)
    assert cheapest("linear", "sm_90", 144, 2, 384, 768, 2)[:2] == (64, 64)

    class Properties:
        multi_processor_count = 144

    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: Properties)

    class Activations:
        device = torch.device("cuda", 77)
        element_size = staticmethod(lambda: 2)

    assert matrix_tile("linear", Activations(), 384, 768, 2)[:2] == (64, 64)  # pyright: ignore[reportArgumentType]


def test_long_products_of_few_tiles_are_split() -> None:
    """ViT-L/14's down-projection is on an H100, ViT-B/16's is not, and none is whose tiles fill the GPU."""
    assert cheapest("linear", "sm_90", 132, 2, 384, 768, 2, 3072) == MatrixTile(128, 128, 64, 8, 3, 3)
    assert cheapest("linear", "sm_90", 132, 2, 512, 512, 2, 2048).parts == 1
    assert cheapest("linear", "sm_90", 132, 2, 64, 512, 2, 2048).parts > 1
    for family in MATRIX_TILES:
        assert cheapest("linear", family, 132, 2, 8192, 512, 2, 2048).parts == 1
        assert cheapest("linear", family, 132, 2, 64, 512, 2).parts == 1


def test_what_can_be_read_wide() -> None:
    """Not transposed, oddly strided and oddly placed tensors, which the launchers copy."""
    x = meta(64, 512)
    assert readable_wide(x, x[:, :256], x[3:])
    for odd in (meta(512, 64).t(), meta(64, 513)[:, :512], torch.zeros(64 * 16 + 1)[1:].view(64, 16)):
        assert not readable_wide(odd)
    offset = torch.arange(33.0)[1:].view(2, 16)
    assert readable_wide(with_wide_rows(offset))
    assert torch.equal(with_wide_rows(offset), offset)
    assert with_wide_rows(x) is x
