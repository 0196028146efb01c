"""The committed counts of traffic: a row for every operator and shape, of the kernels and tiles of now."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="the counts are of Triton kernels, and Triton is not installed")

from launches import Shape
from traffic import DTYPES, FRAMES, MODELS, Case, Row, bits, cases, read_results

from mote_fast.kernels.reference import expert_size
from mote_fast.kernels.tiles import GPU_SPECS, MAX_SPLIT_TILES, VECTOR_TILE, MatrixTile, Product, cheapest
from mote_fast.training.step import FRAMES_PER_RECOMPUTATION
from tests.kernels.product_bytes import linear_bytes, weight_gradient_bytes

AGAIN = "count it again: TRITON_INTERPRET=1 python benchmarks/traffic.py --write"

LAUNCHES = {"pair forward": 3, "pair backward": 4, "routed forward": 3, "routed backward": 4}


@pytest.fixture(scope="module")
def committed() -> dict[Case, Row]:
    return {
        case: Row(*case, *map(int, line[4:9]), *map(float, line[9:11]), line[11])
        for case, line in read_results().items()
    }


def test_every_operator_has_a_row_for_every_shape(committed: dict[Case, Row]) -> None:
    """And there are no others; the bytes that cannot be avoided are those of today's shapes."""
    expected = {case: compulsory for case, (_, compulsory) in cases(MODELS)}
    assert {case: row.compulsory for case, row in committed.items()} == expected, AGAIN


def test_rows_are_within_their_limits(committed: dict[Case, Row]) -> None:
    """The ratio is that of the count which it is limited by, and launches are the documented ones."""
    for row in committed.values():
        count = row.dram if row.limited == "dram" else row.requested
        assert row.ratio == round(count / row.compulsory, 4) <= row.limit
        assert row.launches == LAUNCHES.get(row.operator, 1)


def test_quick_gelu_moves_its_input_and_output_once(committed: dict[Case, Row]) -> None:
    """2 x 4 N w b bytes forward and 3 x 4 N w b backward, N the tokens of the frames that are recomputed at once."""
    assert FRAMES == FRAMES_PER_RECOMPUTATION
    for case, row in committed.items():
        if case.operator.startswith("quick_gelu"):
            model, itemsize = MODELS[case.model], 2 if case.activation == "16-bit" else 4
            passes = 2 if case.operator.endswith("forward") else 3
            assert row.requested == row.per_launch == passes * 4 * FRAMES * model.tokens * model.width * itemsize


def tile_of(product: Product, itemsize: int, rows: int, columns: int, inner: int = 0) -> MatrixTile:
    return cheapest(product, "sm_90", GPU_SPECS["sm_90"].processors, itemsize, rows, columns, 2, inner)


def pair_bytes(shape: Shape, itemsize: int, master_itemsize: int) -> tuple[int, int]:
    """Requested by the pair with the tiles of an H100: forward, which merges first, and backward."""
    width, tokens, size = shape.width, shape.tokens, expert_size(shape.width)
    up, down = (width, 4 * width), (4 * width, width)
    wide, narrow = tile_of("linear", itemsize, tokens, up[1]), tile_of("linear", itemsize, tokens, width, down[0])
    # The launch before one that is split clears its counters.
    cleared = 4 * MAX_SPLIT_TILES if narrow.parts > 1 else 0
    # Every program of the merge reads all weights, float32, and as often the index.
    programs = -(-size // VECTOR_TILE.block)
    forward = master_itemsize * shape.experts * size + 2 * itemsize * size + programs * shape.experts * (4 + 8)
    forward += 2 * linear_bytes(tokens, up, wide, itemsize, bias=True, outputs=2)
    forward += 2 * linear_bytes(tokens, down, narrow, itemsize, bias=True)
    backward = linear_bytes(tokens, up, wide, itemsize, factor=True) + linear_bytes(tokens, down, narrow, itemsize)
    for inner, outer in (up, down):
        tile = tile_of("gradient", itemsize, outer, inner)
        backward += weight_gradient_bytes(tokens, (inner, outer), tile, itemsize, master_itemsize)
    return forward + cleared, 2 * backward + cleared


def test_requested_bytes_are_those_of_the_tiles_of_now(committed: dict[Case, Row]) -> None:
    """The formulas of docs/kernels.md at full shapes; tiles that change leave the committed counts behind."""
    for name, model in MODELS.items():
        for activation, master in DTYPES:
            kind, weights = bits(activation), str(master).removeprefix("torch.")
            found = [committed[Case(name, kind, weights, f"pair {way}")].requested for way in ("forward", "backward")]
            assert found == [*pair_bytes(model.experts, activation.itemsize, master.itemsize)], AGAIN
