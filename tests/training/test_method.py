"""The training method's configuration: the draws of each option, and its errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.errors import ConfigError
from mote_fast.head.experts import merge_weights
from mote_fast.training.method import SMALLEST_TEMPERATURE, Draws, TrainingMethod


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_draws_follow_their_distributions() -> None:
    """The same generator state gives the same draws; frequencies approach eq. (8), and every temperature comes."""
    method = TrainingMethod()
    drawn = method.draw(4000, 4, seeded(1))
    assert drawn == method.draw(4000, 4, seeded(1))
    frequency = torch.bincount(torch.tensor(drawn.experts), minlength=4) / 4000
    assert (frequency - torch.tensor([0.032, 0.087, 0.237, 0.644])).abs().max() < 0.03
    assert set(drawn.temperatures) == set(method.temperatures())


@given(
    routing=st.sampled_from(["multinomial", "random", "fixed"]),
    regulariser=st.sampled_from(["none", "point", "region"]),
    temperature=st.sampled_from(["discrete", "normal", "uniform"]),
    layers=st.integers(0, 6),
    experts=st.integers(1, 16),
    seed=st.integers(0, 1000),
)
def test_every_draw_is_valid_and_repeats(
    routing: Any, regulariser: Any, temperature: Any, layers: int, experts: int, seed: int
) -> None:
    """For 1 to 16 experts: one entry per layer, experts that exist, temperatures that merge; a function of the seed."""
    method = TrainingMethod(routing=routing, regulariser=regulariser, temperature=temperature)
    drawn = method.draw(layers, experts, seeded(seed))
    assert drawn == method.draw(layers, experts, seeded(seed))
    assert len(drawn.experts) == len(drawn.temperatures) == len(drawn.down_experts) == layers
    assert all(0 <= expert < experts for expert in (*drawn.experts, *drawn.down_experts))
    assert all(merge_weights(experts, tau).isfinite().all() for tau in drawn.temperatures)


@pytest.mark.parametrize(
    ("routing", "expected"),
    [
        ("multinomial", [0.032, 0.087, 0.237, 0.644]),
        ("random", [0.25, 0.25, 0.25, 0.25]),
        ("fixed", [0.0, 0.0, 0.0, 1.0]),
    ],
)
def test_routing_frequencies(routing: Any, expected: list[float]) -> None:
    """Table 2d: softmax([1..E]), equal chances, or always the last expert; up and down projections alike."""
    drawn = TrainingMethod(routing=routing).draw(4000, 4, seeded())
    for experts in (drawn.experts, drawn.down_experts):
        frequency = torch.bincount(torch.as_tensor(experts), minlength=4) / 4000
        assert (frequency - torch.tensor(expected)).abs().max() < 0.03


def test_projections_are_routed_apart() -> None:
    """The down projection's expert is a separate draw, not the up projection's (Table 7a)."""
    drawn = TrainingMethod(routing="random").draw(4000, 4, seeded())
    agree = (torch.as_tensor(drawn.experts) == torch.as_tensor(drawn.down_experts)).float().mean()
    assert abs(agree - 0.25) < 0.03


def test_beta_scales_the_discrete_temperatures() -> None:
    """Table 2e: the set is beta times +-1, +-2, +-4, +-8, +-16, and infinity, and all of it is drawn."""
    method = TrainingMethod(beta=1.0)
    expected = {-16.0, -8.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 8.0, 16.0, math.inf}
    assert set(method.temperatures()) == expected
    assert set(method.draw(2000, 4, seeded()).temperatures) == expected


@pytest.mark.parametrize("regulariser", ["none", "point"])
def test_without_a_region_there_is_the_plain_average(regulariser: Any) -> None:
    """Point regularisation draws no temperature: infinity, the average, always."""
    assert set(TrainingMethod(regulariser=regulariser).draw(50, 4, seeded()).temperatures) == {math.inf}


def test_continuous_temperatures_follow_their_distributions() -> None:
    """Table 7f: the standard normal for any beta, and the uniform over the range of the discrete set."""
    normal = torch.tensor(TrainingMethod(temperature="normal", beta=3.0).draw(20_000, 4, seeded()).temperatures)
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    uniform = torch.tensor(TrainingMethod(temperature="uniform", beta=0.5).draw(20_000, 4, seeded()).temperatures)
    assert uniform.abs().max() <= 8.0
    assert uniform.min() < -7.9 < 7.9 < uniform.max()
    assert abs(uniform.abs().mean() - 4.0) < 0.1


@pytest.mark.parametrize("temperature", ["normal", "uniform"])
def test_a_temperature_of_zero_cannot_be_drawn(temperature: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generators can return zero; it is moved to a temperature whose weights are one-hot, as they are nearby."""
    monkeypatch.setattr(torch, "randn", lambda layers, generator: torch.zeros(layers))
    monkeypatch.setattr(torch, "rand", lambda layers, generator: torch.full((layers,), 0.5))
    (tau,) = TrainingMethod(temperature=temperature).draw(1, 16, seeded()).temperatures
    assert tau == pytest.approx(SMALLEST_TEMPERATURE)
    for sign, chosen in ((1, 15), (-1, 0)):
        weights = merge_weights(16, sign * tau)
        assert torch.equal(weights, torch.nn.functional.one_hot(torch.tensor(chosen), 16).float())


def test_draws_move_to_a_device_as_tensors() -> None:
    """A compiled step takes tensors: the same numbers, infinity included."""
    moved = Draws([0, 3], [-0.6, math.inf], [1, 2]).to("cpu")
    assert torch.equal(torch.as_tensor(moved.experts), torch.tensor([0, 3]))
    assert torch.equal(torch.as_tensor(moved.temperatures), torch.tensor([-0.6, math.inf]))
    assert torch.equal(torch.as_tensor(moved.down_experts), torch.tensor([1, 2]))


def test_a_head_without_layers_draws_nothing() -> None:
    """CLIP-Mean has no layers and no experts; its draws are empty and do not advance the generator."""
    generator = seeded()
    drawn = TrainingMethod().draw(0, 0, generator)
    assert len(drawn.experts) == len(drawn.temperatures) == 0
    assert torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"routing": "other"}, "routing"),
        ({"expert_data": "some"}, "expert_data"),
        ({"regulariser": "line"}, "regulariser must"),
        ({"regulariser_loss": "l1"}, "regulariser_loss"),
        ({"temperature": "cold"}, "temperature"),
        ({"beta": 0.0}, "beta"),
        ({"beta": math.nan}, "beta"),
        ({"wmr_weight": -0.1}, "wmr_weight"),
        ({"mse_weight": math.inf}, "mse_weight"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    """Each raises a ConfigError that names the option."""
    with pytest.raises(ConfigError, match=message):
        TrainingMethod(**options)


@pytest.mark.parametrize(("sizes", "message"), [((-1, 4), "layers"), ((2, 0), "experts")])
def test_bad_sizes_are_named(sizes: tuple[int, int], message: str) -> None:
    """Impossible sizes raise before drawing."""
    with pytest.raises(ConfigError, match=message):
        TrainingMethod().draw(*sizes)
