"""Each tile of the device's table in turn, where the table would give the one of least cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from mote_fast.kernels import tiles
from mote_fast.kernels.tiles import MatrixTile


class TilePair(NamedTuple):
    """The tile of linear maps and input gradients, and that of weight gradients."""

    linear: MatrixTile
    gradient: MatrixTile

    @property
    def name(self) -> str:
        """Rows x columns x step of both."""
        linear, gradient = ("x".join(map(str, each.block)) for each in self)
        return f"tiles {linear} and {gradient}"


def tile_pairs(device: torch.device, itemsize: int) -> list[TilePair]:
    """Return pairs in which each tile of the device's table for activations of ``itemsize`` bytes occurs."""
    table = tiles.MATRIX_TILES[tiles.device_family(device)]
    linear, gradient = table["linear"][itemsize], table["gradient"][itemsize]
    count = max(len(linear), len(gradient))
    return [TilePair(linear[at % len(linear)], gradient[at % len(gradient)]) for at in range(count)]


@contextmanager
def only_tiles(pair: TilePair, device: torch.device, itemsize: int) -> Iterator[None]:
    """Let every launch take these tiles, in all threads: backward passes run in PyTorch's own."""
    table = tiles.MATRIX_TILES[tiles.device_family(device)]
    before = table["linear"][itemsize], table["gradient"][itemsize]
    table["linear"][itemsize], table["gradient"][itemsize] = (pair.linear,), (pair.gradient,)
    tiles.cheapest.cache_clear()
    try:
        yield
    finally:
        table["linear"][itemsize], table["gradient"][itemsize] = before
        tiles.cheapest.cache_clear()
