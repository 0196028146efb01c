"""Experts: layout, routing, merging, folding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mote_fast import TrainingMethod
from mote_fast.errors import ConfigError
from mote_fast.head.experts import (
    FeedForward,
    TemporalExperts,
    merge_weights,
)
from mote_fast.kernels.reference import (
    expert_ffn,
    expert_size,
    merge_experts,
    pack_expert,
    quick_gelu,
    routed_ffn,
    unpack_expert,
)
from tests.tolerances import assert_close

TEMPERATURES = st.sampled_from(TrainingMethod().temperatures())

WIDTH = 16


def naive_ffn(experts: TemporalExperts, weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The merged FFN as eq. (9) and eq. (5) write it, one expert at a time, in float64."""
    rows = [unpack_expert(row.double(), WIDTH) for row in experts.weight.detach()]
    pairs = list(zip(weights.double(), rows, strict=True))
    w_up, b_up = sum(w * row.w_up for w, row in pairs), sum(w * row.b_up for w, row in pairs)
    w_down, b_down = sum(w * row.w_down for w, row in pairs), sum(w * row.b_down for w, row in pairs)
    hidden = F.linear(x.double(), w_up, b_up)
    return F.linear(hidden * torch.sigmoid(1.702 * hidden), w_down, b_down).float()


def test_pack_and_unpack_are_inverse() -> None:
    """A row and its projections hold the same numbers, and unpacking copies nothing."""
    row = torch.randn(3, expert_size(WIDTH))
    expert = unpack_expert(row, WIDTH)
    assert torch.equal(pack_expert(expert), row)
    assert expert.w_up.data_ptr() == row.data_ptr()
    assert (expert.w_up.shape, expert.w_down.shape) == ((3, 4 * WIDTH, WIDTH), (3, WIDTH, 4 * WIDTH))


def test_experts_start_apart_with_the_right_spread() -> None:
    """Each expert has its own draw from N(0, 0.02) and zero biases: equal experts would stay equal."""
    experts = TemporalExperts(64, 4)
    stacked = unpack_expert(experts.weight.detach(), 64)
    assert not any(torch.equal(experts.weight[0], other) for other in experts.weight[1:])
    assert stacked.w_up.std().item() == pytest.approx(0.02, rel=0.05)
    assert stacked.w_down.std().item() == pytest.approx(0.02, rel=0.05)
    assert not stacked.b_up.any()
    assert not stacked.b_down.any()


@given(experts=st.integers(1, 8), temperature=TEMPERATURES, seed=st.integers(0, 1000))
def test_pair_matches_the_spec(experts: int, temperature: float, seed: int) -> None:
    """Both streams equal eq. (5) and eq. (9) for any expert count and temperature, negative and infinite included."""
    torch.manual_seed(seed)
    mixture = TemporalExperts(WIDTH, experts)
    torch.nn.init.normal_(mixture.weight, std=0.3)
    x = torch.randn(2, 3, WIDTH)
    expert = seed % experts
    routed, merged = mixture.pair(x, 2 * x, expert, merge_weights(experts, temperature))
    assert_close(routed, naive_ffn(mixture, F.one_hot(torch.tensor(expert), experts), x))
    assert_close(merged, naive_ffn(mixture, merge_weights(experts, temperature), 2 * x))
    assert_close(mixture.at_temperature(2 * x, temperature), merged)


def test_fusion_weights_are_honoured_and_folded() -> None:
    """Inference merges with softmax(fusion), and folding gives the same result."""
    mixture = TemporalExperts(WIDTH, 3)
    torch.nn.init.normal_(mixture.weight, std=0.3)
    mixture.fusion.copy_(torch.tensor([0.5, -1.0, 2.0]))
    x = torch.randn(5, WIDTH)
    assert_close(mixture(x), naive_ffn(mixture, mixture.fusion.softmax(0), x))
    assert_close(mixture.fold()(x), mixture(x), "equivalent")


def test_gradient_reaches_every_expert_in_proportion_to_its_weight() -> None:
    """dL/dW_i = w_i dL/dW in the merged stream (eq. (11))."""
    mixture = TemporalExperts(WIDTH, 4)
    x = torch.randn(3, 2, WIDTH)
    weights = merge_weights(4, 2.4)
    merged = mixture.pair(x, x, 0, weights)[1]
    (gradient,) = torch.autograd.grad(merged.square().sum(), mixture.weight)
    for i in range(4):
        assert_close(gradient[i] / weights[i], gradient[0] / weights[0])


def test_routed_ffn_sends_each_sample_to_its_expert() -> None:
    """One index per clip: each row equals that expert alone; an empty batch stays empty."""
    mixture = TemporalExperts(WIDTH, 3)
    x, index = torch.randn(4, 2, WIDTH), torch.tensor([2, 0, 2, 1])
    out = mixture.routed(x, index)
    for sample, i, result in zip(x, index, out, strict=True):
        assert_close(result, expert_ffn(sample, mixture.weight[i]))
    assert routed_ffn(x[:0], mixture.weight, index[:0]).shape == (0, 2, WIDTH)


def test_low_precision_inputs_are_computed_in_float32() -> None:
    """The references round once, at the end."""
    experts, weights = torch.randn(3, 7).half(), torch.tensor([0.2, 0.3, 0.5])
    assert torch.equal(merge_experts(experts, weights), (weights @ experts.float()).half())


def test_merge_weights_reject_meaningless_temperatures() -> None:
    """Zero and NaN define no weights; infinity gives the plain average."""
    for temperature in (0.0, math.nan):
        with pytest.raises(ConfigError, match="temperature"):
            merge_weights(4, temperature)
    with pytest.raises(ConfigError, match="temperature"):
        merge_weights(4, [1.2, 0.0])
    assert_close(merge_weights(4, math.inf), torch.full((4,), 0.25), "equivalent")


def test_merge_weights_of_several_temperatures_are_those_of_each() -> None:
    """A step merges by the weights of all layers, computed at once, as one layer's alone would be, to the bit."""
    temperatures = [-0.6, 9.6, math.inf]
    for given_as in (temperatures, tuple(temperatures), torch.tensor(temperatures)):
        for row, temperature in zip(merge_weights(4, given_as), temperatures, strict=True):
            assert torch.equal(row, merge_weights(4, temperature))


def test_plain_ffn_and_bad_sizes() -> None:
    """A plain FFN serves both streams; a mixture without experts is refused."""
    plain, x = FeedForward(WIDTH), torch.randn(2, 3, WIDTH)
    routed, merged = plain.pair(x, x, 0, torch.ones(1))
    assert torch.equal(routed, merged)
    assert_close(routed, plain.down(quick_gelu(plain.up(x))), "exact")
    with pytest.raises(ConfigError, match="experts"):
        TemporalExperts(WIDTH, 0)
