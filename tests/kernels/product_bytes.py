"""The bytes that the programs of one product request: the formulas of docs/kernels.md, from the dataflow."""

from __future__ import annotations

from mote_fast.kernels.tiles import MatrixTile


def linear_bytes(
    tokens: int,
    shape: tuple[int, int],
    tile: MatrixTile,
    itemsize: int,
    *,
    bias: bool = False,
    factor: bool = False,
    outputs: int = 1,
) -> int:
    """Of one stream's ``[N, inner] @ [inner, outer]``: each tile reads its rows of both operands.

    Args:
        tokens: N.
        shape: (inner, outer).
        tile: of one program, or of the programs that share it.
        itemsize: bytes of a value.
        bias: whether every tile reads its columns of a bias.
        factor: whether the product is multiplied by a matrix of its shape.
        outputs: matrices written.
    """
    inner, outer = shape
    column_tiles, token_tiles = -(-outer // tile.columns), -(-tokens // tile.rows)
    read = column_tiles * tokens * inner + token_tiles * outer * (inner + bias)
    handed_over = 0
    if tile.parts > 1:
        # Every part is stored and loaded in float32, and every program reads and writes its tile's counter.
        handed_over = column_tiles * token_tiles * tile.parts * 2 * 4 * (tile.rows * tile.columns + 1)
    return itemsize * (read + (outputs + factor) * tokens * outer) + handed_over


def weight_gradient_bytes(
    tokens: int, shape: tuple[int, int], tile: MatrixTile, itemsize: int, master_itemsize: int
) -> int:
    """Of one stream's ``[outer, N] @ [N, inner]`` and the sum of the first factor, which the first tiles read again.

    Args:
        tokens: N.
        shape: (inner, outer) of the weight [outer, inner].
        tile: of one program.
        itemsize: bytes of an activation.
        master_itemsize: bytes of a gradient.
    """
    inner, outer = shape
    column_tiles, row_tiles = -(-inner // tile.columns), -(-outer // tile.rows)
    read = tokens * ((column_tiles + 1) * outer + row_tiles * inner)
    return itemsize * read + master_itemsize * outer * (inner + 1)
