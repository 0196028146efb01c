"""Expert designs of the paper's Figure 5: each against the plain formulas, one expert and one sample at a time."""

from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mote_fast import TrainingMethod
from mote_fast.errors import ConfigError
from mote_fast.head.expert_designs import ProjectionExperts, make_experts
from mote_fast.head.experts import TemporalExperts, merge_weights
from tests.tolerances import assert_close

TEMPERATURES = st.sampled_from(TrainingMethod().temperatures())

WIDTH = 8
DESIGNS = ("up_down", "up", "down")
Design = Literal["up_down", "up", "down"]


def make(design: Design, experts: int = 3, seed: int = 0) -> ProjectionExperts:
    torch.manual_seed(seed)
    mixture = ProjectionExperts(WIDTH, experts, design)
    for parameter in mixture.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return mixture


def ffn(x: Tensor, w_up: Tensor, b_up: Tensor, w_down: Tensor, b_down: Tensor) -> Tensor:
    hidden = F.linear(x.double(), w_up.double(), b_up.double())
    return F.linear(hidden * torch.sigmoid(1.702 * hidden), w_down.double(), b_down.double()).float()


def naive_expert(mixture: ProjectionExperts, design: str, x: Tensor, up: int, down: int) -> Tensor:
    """The FFN of one up and one down projection, shared ones if the design has them."""
    up, down = 0 if design == "down" else up, 0 if design == "up" else down
    return ffn(x, mixture.up_weight[up], mixture.up_bias[up], mixture.down_weight[down], mixture.down_bias[down])


def naive_merge(mixture: ProjectionExperts, design: str, x: Tensor, weights: Tensor) -> Tensor:
    """The FFN with the projections that have experts averaged."""
    one = torch.ones(1)
    up, down = one if design == "down" else weights, one if design == "up" else weights
    stacks = (mixture.up_weight, up), (mixture.up_bias, up), (mixture.down_weight, down), (mixture.down_bias, down)
    merged = [sum(w.double() * row.double() for w, row in zip(share, rows, strict=True)) for rows, share in stacks]
    return ffn(x, *merged)


@pytest.mark.parametrize("design", DESIGNS)
@given(experts=st.integers(1, 5), temperature=TEMPERATURES, seed=st.integers(0, 100))
def test_pair_matches_the_formulas(design: Design, experts: int, temperature: float, seed: int) -> None:
    """Both streams of every design, for any expert count and temperature; an index pair routes projections apart."""
    mixture, x = make(design, experts, seed), torch.randn(2, 3, WIDTH)
    up, down = seed % experts, (seed // 7) % experts
    weights = merge_weights(experts, temperature)
    routed, merged = mixture.pair(x, 2 * x, torch.tensor([up, down]), weights)
    assert_close(routed, naive_expert(mixture, design, x, up, down))
    assert_close(merged, naive_merge(mixture, design, 2 * x, weights))
    assert_close(mixture.pair(x, x, up, weights)[0], naive_expert(mixture, design, x, up, up))
    assert_close(mixture.at_temperature(2 * x, temperature), merged, "equivalent")


@pytest.mark.parametrize("design", DESIGNS)
def test_each_sample_goes_to_its_experts(design: Design) -> None:
    """One index or one pair per sample, in any order; a batch of two is not read as a pair; empty stays empty."""
    mixture = make(design)
    for index in ([2, 0, 2, 1, 0], [1, 2], []):
        x = torch.randn(len(index), 4, WIDTH)
        out = mixture.routed(x, torch.tensor(index, dtype=torch.int64))
        apart = mixture.routed(x, torch.tensor([(up, 2 - up) for up in index], dtype=torch.int64).view(-1, 2))
        assert out.shape == apart.shape == x.shape
        for sample, expert, together, separate in zip(x, index, out, apart, strict=True):
            assert_close(together, naive_expert(mixture, design, sample, expert, expert))
            assert_close(separate, naive_expert(mixture, design, sample, expert, 2 - expert))


@pytest.mark.parametrize("design", DESIGNS)
@torch.no_grad()
def test_inference_merges_and_folds(design: Design) -> None:
    """Inference merges with softmax(fusion), and folding gives the same result with a copy of the weights."""
    mixture = make(design)
    mixture.fusion.copy_(torch.tensor([0.5, -1.0, 2.0]))
    x = torch.randn(5, WIDTH)
    assert_close(mixture(x), naive_merge(mixture, design, x, mixture.fusion.softmax(0)))
    expected, plain = mixture(x), mixture.fold()
    for parameter in mixture.parameters():
        parameter.zero_()
    assert_close(plain(x), expected, "equivalent")


@pytest.mark.parametrize(("design", "counts"), [("up_down", (4, 4)), ("up", (4, 1)), ("down", (1, 4))])
def test_designs_have_the_figures_parameters(design: Design, counts: tuple[int, int]) -> None:
    """Figure 5: experts of both projections, of the first, or of the second; N(0, 0.02) and zero biases."""
    torch.manual_seed(0)
    mixture = make_experts(64, 4, design, "different")
    assert isinstance(mixture, ProjectionExperts)
    assert (len(mixture.up_weight), len(mixture.down_weight)) == counts
    assert mixture.experts == 4
    for weight in (mixture.up_weight, mixture.down_weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not any(torch.equal(weight[0], other) for other in weight[1:])
    assert not mixture.up_bias.any()
    assert not mixture.down_bias.any()


@pytest.mark.parametrize("design", ["ffn", *DESIGNS])
def test_same_initialisation(design: Any) -> None:
    """Table 2a: every expert is a copy of the first one, also after a reset; otherwise experts are separate draws."""
    mixture = make_experts(16, 3, design, "same")
    for _ in range(2):
        assert all(torch.equal(parameter[0], other) for parameter in mixture.parameters() for other in parameter[1:])
        before = copy.deepcopy(mixture.state_dict())
        mixture.reset_parameters()
        assert any(not torch.equal(before[name], value) for name, value in mixture.state_dict().items())


@pytest.mark.parametrize("design", DESIGNS)
def test_autocast_merges_in_full_precision(design: Design) -> None:
    """Autocast merges weights in full precision and rounds once; the routed stream runs in low precision too."""
    mixture, x = make(design), torch.randn(2, 3, WIDTH)
    weights = merge_weights(3, 2.4)
    expected = mixture.pair(x, x, 1, weights)
    with torch.autocast("cpu", torch.bfloat16):
        found = mixture.pair(x, x, 1, weights)
        row = mixture.merged()
    assert row.dtype == torch.float32
    for mine, truth in zip(found, expected, strict=True):
        assert mine.dtype == torch.bfloat16
        assert_close(mine.float(), truth, "bfloat16")


def test_the_default_design_is_the_fast_one() -> None:
    """Whole FFNs use the class that the kernels and the factored optimiser support."""
    assert type(make_experts(WIDTH, 2, "ffn", "different")) is TemporalExperts


def test_bad_options_are_named() -> None:
    """Unknown designs and initialisations, and a mixture without experts, raise."""
    options: Any
    for options, message in (
        ((WIDTH, 2, "whole", "different"), "expert_design"),
        ((WIDTH, 2, "ffn", "equal"), "expert_init"),
        ((WIDTH, 2, "up", "equal"), "expert_init"),
        ((WIDTH, 0, "up", "different"), "experts"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_experts(*options)
