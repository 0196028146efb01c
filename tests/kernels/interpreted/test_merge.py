"""Merge kernels against float64 autograd, under the interpreter."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.kernels import reference
from mote_fast.kernels.merge import (
    expand_expert_gradient,
    merge_and_route,
    merge_experts_backward,
    merge_experts_forward,
)
from mote_fast.kernels.tiles import VectorTile
from tests.kernels.interpreted.cases import (
    NARROW,
    Experts,
    beside_terms,
    dtypes,
    lowest,
    normal,
    stacked_experts,
    vector_tiles,
)
from tests.tolerances import assert_close

seeds = st.integers(0, 2**31)


@given(stacked_experts(widths=NARROW), dtypes, vector_tiles)
def test_forward(experts: Experts, out_dtype: torch.dtype, tile: VectorTile) -> None:
    """The merged row is the weighted sum, for any temperature, tile and dtypes."""
    merged = merge_experts_forward(experts.rows, experts.weights, out_dtype, tile)
    assert merged.dtype == out_dtype
    expected = reference.merge_experts(experts.rows.double(), experts.weights)
    assert_close(merged, expected, lowest(merged))


@given(stacked_experts(widths=NARROW), dtypes, vector_tiles)
def test_rows_of_the_pair(experts: Experts, out_dtype: torch.dtype, tile: VectorTile) -> None:
    """The routed row is a cast copy, the merged one what merging alone gives."""
    routed, merged = merge_and_route(experts.rows, experts.weights, experts.index, out_dtype, tile)
    assert torch.equal(routed, experts.rows[experts.index].to(out_dtype))
    assert torch.equal(merged, merge_experts_forward(experts.rows, experts.weights, out_dtype, tile))


@given(stacked_experts(widths=NARROW), dtypes, vector_tiles, seeds)
def test_backward(experts: Experts, grad_dtype: torch.dtype, tile: VectorTile, seed: int) -> None:
    """Gradients of experts and weights are autograd's."""
    grad = normal((experts.rows.shape[1],), seed, grad_dtype)
    rows = experts.rows.double().requires_grad_()
    weights = experts.weights.double().requires_grad_()
    (weights @ rows).backward(grad.double())
    grad_experts, grad_weights = merge_experts_backward(grad, experts.weights, experts.rows, tile=tile)
    assert grad_weights is not None
    assert rows.grad is not None
    assert weights.grad is not None
    assert_close(grad_experts, rows.grad, lowest(experts.rows, grad))
    found, truth = (beside_terms(each, grad, experts.rows) for each in (grad_weights, weights.grad))
    assert_close(found, truth, lowest(grad_weights))
    alone, none = merge_experts_backward(grad, experts.weights, out_dtype=experts.rows.dtype, tile=tile)
    assert none is None
    assert torch.equal(alone, grad_experts)


@given(stacked_experts(widths=NARROW), vector_tiles, st.booleans(), seeds)
def test_expansion(experts: Experts, tile: VectorTile, into: bool, seed: int) -> None:
    """Both factors reach every expert once; a given buffer is overwritten whole."""
    size = experts.rows.shape[1]
    g, grad_merged = normal((2, size), seed, experts.rows.dtype)
    out = torch.full_like(experts.rows, float("nan")) if into else None
    grad = expand_expert_gradient(grad_merged, g, experts.weights, experts.index, out, tile)
    assert out is None or grad is out
    expected = reference.expand_expert_gradient(grad_merged.double(), g.double(), experts.weights, experts.index)
    assert_close(grad, expected, lowest(g))
