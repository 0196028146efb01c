"""Expert-pair kernels against float64 autograd, under the interpreter."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.kernels import reference
from mote_fast.kernels.expert_ffn import expand_expert_gradient, expert_pair_backward, expert_pair_forward
from mote_fast.kernels.merge import merge_experts_backward
from tests.kernels.interpreted.cases import (
    VECTOR_TILES,
    Experts,
    beside_terms,
    dtypes,
    lay_out,
    layouts,
    lowest,
    matrix_tiles,
    normal,
    stacked_experts,
    token_counts,
)
from tests.tolerances import assert_close


@given(
    stacked_experts(largest=5),
    token_counts,
    dtypes,
    st.tuples(layouts, layouts, layouts, layouts),
    st.integers(0, 2**31),
    st.data(),
)
def test_values_and_gradients(
    experts: Experts,
    tokens: int,
    dtype: torch.dtype,
    layout: tuple[str, str, str, str],
    seed: int,
    data: st.DataObject,
) -> None:
    """Both outputs and the gradients of both inputs, all experts and the merge weights are autograd's."""
    tile = data.draw(matrix_tiles(experts.width))
    values = normal((4, tokens, experts.width), seed, dtype)
    x_routed, x_merged, dy_routed, dy_merged = (lay_out(v, form) for v, form in zip(values, layout, strict=True))
    y_routed, y_merged, saved, rows = expert_pair_forward(
        x_routed, x_merged, experts.rows, experts.weights, experts.index, tile
    )
    dx_routed, dx_merged, row_grads = expert_pair_backward(
        dy_routed, dy_merged, x_routed, x_merged, experts.rows, rows, experts.index, saved, tile=tile
    )
    g, grad_merged = row_grads
    # The fewest programs: test_merge.py has these two kernels in all tiles.
    largest = VECTOR_TILES[-1]
    grad_experts = expand_expert_gradient(grad_merged, g, experts.weights, experts.index, tile=largest)
    _, grad_weights = merge_experts_backward(grad_merged, experts.weights, experts.rows, tile=largest)
    assert grad_weights is not None
    assert y_routed.dtype == y_merged.dtype == dx_routed.dtype == dtype
    assert row_grads.dtype == experts.rows.dtype

    inputs = [t.double().requires_grad_() for t in (x_routed, x_merged, experts.rows, experts.weights)]
    expected = reference.expert_pair_ffn(*inputs, experts.index)
    gradients = torch.autograd.grad(expected, inputs, (dy_routed.double(), dy_merged.double()))
    precision = lowest(x_routed, experts.rows)
    for actual, wanted in zip(
        (y_routed, y_merged, dx_routed, dx_merged, grad_experts),
        (*expected, *gradients[:-1]),
        strict=True,
    ):
        assert_close(actual, wanted, precision)
    found, truth = (beside_terms(each, grad_merged, experts.rows) for each in (grad_weights, gradients[-1]))
    assert_close(found, truth, precision)
