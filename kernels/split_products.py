"""Products whose reduced dimension several programs share, where a launch has too few tiles for a GPU's processors.

Each program stores its part of a tile in float32; the last of a tile's programs to end adds all parts up, in their
order, so that the sum does not depend on which one that is, and no launch follows. A counter for each tile says how
many have ended. It must be zero before the launch: an earlier launch clears all.

Source: split-K and Stream-K products (Osama et al., 2023), with one fixed order of summation.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mote_fast.kernels.blocks import zeros
from mote_fast.kernels.tiles import MAX_SPLIT_TILES, MatrixTile


@triton.jit
def clear_counters(counters, COUNT: tl.constexpr):
    """Let the first program of a launch set the counters of a later one to zero."""
    if tl.program_id(0) + tl.program_id(1) == 0:
        tl.store(counters + tl.arange(0, COUNT), tl.zeros((COUNT,), tl.int32))


@triton.jit
def share_of(part, parts, INNER: tl.constexpr, STEP: tl.constexpr):
    """First and last value of the reduced dimension for one part: whole steps, and nothing for parts too many."""
    STEPS: tl.constexpr = (INNER + STEP - 1) // STEP
    share = tl.cdiv(STEPS, parts) * STEP
    return part * share, tl.minimum((part + 1) * share, INNER)


@triton.jit
def within_tile(BLOCK: tl.constexpr):
    """Offsets [R, C] in a tile that is stored row by row."""
    return tl.arange(0, BLOCK[0])[:, None] * BLOCK[1] + tl.arange(0, BLOCK[1])[None, :]


@triton.jit
def ends_last(total, stored, part, parts, counter, BLOCK: tl.constexpr):
    """Store this program's part [R, C] of a tile, and return whether all others of the tile are stored.

    stored: where the tile's parts are, one after the other; counter: of the tile.
    """
    tl.store(stored + part * (BLOCK[0] * BLOCK[1]) + within_tile(BLOCK), total)
    # All threads' stores come before the one thread that counts, and it releases them to whoever counts later.
    tl.debug_barrier()
    return tl.atomic_add(counter, 1, sem="acq_rel") == parts - 1


@triton.jit
def sum_of_parts(stored, parts, BLOCK: tl.constexpr):
    """Sum [R, C] of a tile's parts, float32, in their order."""
    total = zeros(BLOCK)
    for part in range(0, parts):
        # From L2: another processor wrote them.
        total += tl.load(stored + part * (BLOCK[0] * BLOCK[1]) + within_tile(BLOCK), cache_modifier=".cg")
    return total


def memory_for_parts(like: Tensor, tile: MatrixTile, tiles: int) -> tuple[Tensor | None, Tensor | None]:
    """Return memory for the parts of a launch of so many tiles, and its counters; None where the tile is not split.

    Args:
        like: a tensor on the device.
        tile: says into how many parts.
        tiles: of all streams; more than MAX_SPLIT_TILES are not split.
    """
    if tile.parts == 1 or not 0 < tiles <= MAX_SPLIT_TILES:
        return None, None
    parts = like.new_empty(tiles * tile.parts * tile.rows * tile.columns, dtype=torch.float32)
    return parts, like.new_empty(MAX_SPLIT_TILES, dtype=torch.int32)
