"""Routed kernels against float64 autograd, under the interpreter."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.kernels import reference
from mote_fast.kernels.routed_ffn import GROUP_BLOCK, group, routed_backward, routed_forward
from tests.kernels.interpreted.cases import (
    Experts,
    dtypes,
    lay_out,
    layouts,
    lowest,
    matrix_tiles,
    normal,
    stacked_experts,
)
from tests.tolerances import assert_close


@given(st.integers(1, 16), st.one_of(st.integers(0, 40), st.integers(0, 3 * GROUP_BLOCK)), st.integers(0, 2**31))
def test_grouping(experts: int, samples: int, seed: int) -> None:
    """Grouping is a stable sort by expert, past one block of samples too."""
    index = torch.randint(experts, (samples,), generator=torch.Generator().manual_seed(seed))
    order, starts = group(index, experts)
    assert torch.equal(order.long(), index.sort(stable=True).indices)
    assert torch.equal(starts[1:].long(), torch.bincount(index, minlength=experts).cumsum(0))
    assert starts[0] == 0


@given(
    stacked_experts(largest=5),
    st.integers(0, 9),
    st.integers(1, 9),
    dtypes,
    st.tuples(layouts, layouts),
    st.booleans(),
    st.integers(0, 2**31),
    st.data(),
)
def test_values_and_gradients(
    experts: Experts,
    samples: int,
    frames: int,
    dtype: torch.dtype,
    layout: tuple[str, str],
    alike: bool,
    seed: int,
    data: st.DataObject,
) -> None:
    """Outputs and gradients are autograd's, also when every sample goes to one expert and the others get none."""
    tile = data.draw(matrix_tiles(experts.width))
    values = normal((2, samples * frames, experts.width), seed, dtype)
    x, dy = (lay_out(v, form).unflatten(0, (samples, frames)) for v, form in zip(values, layout, strict=True))
    count = experts.rows.shape[0]
    index = torch.randint(count, (samples,), generator=torch.Generator().manual_seed(seed))
    if alike:
        index.fill_(int(experts.index))
    y, saved = routed_forward(x, experts.rows, index, tile)
    dx, grad_experts = routed_backward(dy, x, experts.rows, index, saved, tile=tile)
    assert y.dtype == dx.dtype == dtype
    assert grad_experts.dtype == experts.rows.dtype

    inputs = [t.double().requires_grad_() for t in (x, experts.rows)]
    expected = reference.routed_ffn(*inputs, index)
    wanted = [torch.zeros_like(t) for t in inputs]
    if samples:
        wanted = list(torch.autograd.grad(expected, inputs, dy.double()))
    precision = lowest(x, experts.rows)
    for actual, target in zip((y, dx, grad_experts), (expected, *wanted), strict=True):
        assert_close(actual, target, precision)
