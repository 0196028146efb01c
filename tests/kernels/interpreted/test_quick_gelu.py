"""QuickGELU's kernels against float64, under the interpreter."""

from __future__ import annotations

import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from mote_fast.kernels import reference
from mote_fast.kernels.quick_gelu import quick_gelu_backward, quick_gelu_forward
from mote_fast.kernels.tiles import VECTOR_TILE, VectorTile
from tests.kernels.interpreted.cases import dtypes, lay_out, layouts, lowest, normal, vector_tiles
from tests.tolerances import assert_close

seeds = st.integers(0, 2**31)
# Up to where the exponential of float32 overflows.
spreads = st.sampled_from((1.0, 8.0, 100.0))
sizes = st.tuples(st.sampled_from((0, 1, 3, 17)), st.sampled_from((1, 5, 64, 1024)))


def beside_the_least(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return all values and the least that ``dtype`` holds to its precision: errors where all underflow are relative
    to that.
    """
    return torch.cat((values.double().flatten(), torch.tensor([torch.finfo(dtype).tiny], dtype=torch.float64)))


# One value, which underflows.
@example((1, 1), torch.float32, "contiguous", 100.0, VECTOR_TILE, 79)
@given(sizes, dtypes, layouts, spreads, vector_tiles, seeds)
def test_forward(
    size: tuple[int, int], dtype: torch.dtype, layout: str, spread: float, tile: VectorTile, seed: int
) -> None:
    """Any number of values, strides, tile and range."""
    x = lay_out(spread * normal(size, seed, dtype), layout)
    y = quick_gelu_forward(x, tile)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    expected = reference.quick_gelu(x.double())
    assert_close(beside_the_least(y, dtype), beside_the_least(expected, dtype), lowest(y))


@given(sizes, dtypes, layouts, layouts, spreads, vector_tiles, seeds)
def test_backward(
    size: tuple[int, int],
    dtype: torch.dtype,
    layout: str,
    of_gradient: str,
    spread: float,
    tile: VectorTile,
    seed: int,
) -> None:
    """Autograd's gradient, for gradients of any strides."""
    x = lay_out(spread * normal(size, seed, dtype), layout)
    dy = lay_out(normal(size, seed + 1, dtype), of_gradient)
    leaf = x.double().requires_grad_()
    (expected,) = torch.autograd.grad(reference.quick_gelu(leaf), leaf, dy.double())
    dx = quick_gelu_backward(dy, x, tile)
    assert (dx.shape, dx.dtype) == (x.shape, dtype)
    assert_close(beside_the_least(dx, dtype), beside_the_least(expected, dtype), lowest(dx))
