"""Generated inputs of the kernels: shapes, strides, dtypes, experts, temperatures, indices and tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from mote_fast import TrainingMethod
from mote_fast.head.experts import merge_weights
from mote_fast.kernels.reference import expert_size
from mote_fast.kernels.tiles import MatrixTile, VectorTile

# bfloat16 is left out: the interpreter's arithmetic on it is wrong (docs/kernels.md).
DTYPES = (torch.float32, torch.float16)

WIDTHS = (16, 32, 48, 64, 80)
# Rows of 1 to 17 blocks of the vector kernels, never whole ones: wider experts add programs that do the same.
NARROW = (16, 32)
# The smallest tiles are for the narrowest experts only: the interpreter's time grows with the number of programs.
SMALL_TILES = (MatrixTile(16, 16, 16, 4, 1), MatrixTile(16, 32, 16, 4, 2), MatrixTile(32, 16, 32, 4, 2))
# The last number splits the reduced dimension of the pair's products over the hidden width.
LARGE_TILES = (
    None,
    MatrixTile(32, 64, 32, 4, 2),
    MatrixTile(32, 64, 32, 4, 2, 3),
    MatrixTile(64, 32, 64, 4, 2),
    MatrixTile(64, 128, 32, 4, 2),
)
VECTOR_TILES = (VectorTile(512, 2), VectorTile(1024, 4), VectorTile(4096, 4))

dtypes = st.sampled_from(DTYPES)
vector_tiles = st.sampled_from(VECTOR_TILES)
token_counts = st.one_of(st.sampled_from((0, 1, 2, 15, 16, 17, 33, 70)), st.integers(0, 48))
# Temperatures of the method (negative ones and infinity among them) and any others.
temperatures = st.one_of(
    st.sampled_from(TrainingMethod().temperatures()), st.floats(0.2, 20.0), st.floats(-20.0, -0.2), st.just(-math.inf)
)
layouts = st.sampled_from(("contiguous", "transposed", "padded rows", "every other column", "one row for all"))


def lay_out(values: Tensor, layout: str) -> Tensor:
    """Return ``values [N, d]`` as a view with the strides that ``layout`` names."""
    rows, columns = values.shape
    if layout == "transposed":
        return values.t().contiguous().t()
    if layout == "padded rows":
        return torch.cat((values, values.new_full((rows, 3), float("nan"))), 1)[:, :columns]
    if layout == "every other column":
        return torch.stack((values, torch.full_like(values, float("nan"))), 2).flatten(1)[:, ::2]
    if layout == "one row for all" and rows:
        return values[:1].expand(rows, columns)
    return values


@dataclass
class Experts:
    """Stacked experts with the merge weights and the index of one step."""

    rows: Tensor  # [E, P]
    weights: Tensor  # [E]
    index: Tensor  # int64 scalar
    width: int


@st.composite
def stacked_experts(draw: st.DrawFn, largest: int = 16, widths: tuple[int, ...] = WIDTHS) -> Experts:
    """Draw experts around a positive mean, so that no sum over them vanishes by chance, at either end of the index."""
    width, count = draw(st.sampled_from(widths)), draw(st.integers(1, largest))
    index = draw(st.one_of(st.sampled_from((0, count - 1)), st.integers(0, count - 1)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rows = 0.1 * torch.randn(count, expert_size(width), generator=generator) + 0.02
    weights = merge_weights(count, draw(temperatures))
    return Experts(rows.to(draw(dtypes)), weights, torch.tensor(index), width)


def matrix_tiles(width: int) -> st.SearchStrategy[MatrixTile | None]:
    """Tiles that divide ``width`` and tiles that do not; None leaves the choice to the launcher."""
    return st.sampled_from(LARGE_TILES + (SMALL_TILES if width <= 32 else ()))


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    """Return normal values around a positive mean, for the same reason."""
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.2).to(dtype)


def lowest(*tensors: Tensor) -> str:
    """The tolerance of the least precise dtype among the tensors."""
    dtype = min((t.dtype for t in tensors), key=lambda dtype: torch.finfo(dtype).bits)
    return {torch.float32: "kernel float32", torch.float16: "kernel float16"}[dtype]


def beside_terms(values: Tensor, grad_merged: Tensor, rows: Tensor) -> Tensor:
    """Return gradients of merge weights [E] and the norm of all terms of these dot products, ``grad_merged * rows``.

    The terms may cancel: errors are those of the terms, not of what is left.
    """
    return torch.cat((values.double(), (grad_merged.double() * rows.double()).norm()[None]))
