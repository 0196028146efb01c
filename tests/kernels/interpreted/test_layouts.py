"""Every tensor argument of every kernel in every layout, through the registered operators and the launchers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from mote_fast.errors import ShapeError
from mote_fast.kernels.factored_adamw import adamw_factored
from mote_fast.kernels.merge import expand_expert_gradient
from mote_fast.kernels.routed_ffn import group
from tests.ops.layout_cases import (
    ARGUMENTS,
    CHOSEN,
    EXPERTS,
    INDEX,
    LAYOUTS,
    PLACES,
    SIZE,
    STACK,
    STATES,
    WEIGHTS,
    assert_any_layout,
    assert_any_layout_of_adamw,
    choices,
    every_other,
    normal,
    states_and_factors,
)


# In each of these runs all arguments but one are contiguous.
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "contiguous"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_each_argument_alone(name: str, layout: str) -> None:
    """Values and gradients are those of the float64 reference, whichever argument or output gradient has the layout."""
    for place in PLACES[name]:
        assert_any_layout(name, "triton", {place: layout})


@given(choices())
def test_all_arguments_together(choice: tuple[str, dict[str, str]]) -> None:
    """Any layout of each."""
    assert_any_layout(choice[0], "triton", choice[1])


@given(states_and_factors)
def test_adamw_and_the_expansion(chosen: dict[str, str]) -> None:
    """Factors of any layout; parameters and moments anywhere in their storage."""
    assert_any_layout_of_adamw("triton", chosen)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_grouping(layout: str) -> None:
    """The sort reads every index by its stride."""
    index = LAYOUTS[layout](INDEX)
    order, starts = group(index, EXPERTS)
    assert torch.equal(order.long(), index.sort(stable=True).indices)
    assert starts.tolist() == [0, *index.bincount(minlength=EXPERTS).cumsum(0).tolist()]


def test_what_is_written_must_be_contiguous() -> None:
    """A parameter, a moment or a gradient that a copy would replace is refused by name."""
    factor = normal(SIZE, seed=9), normal(SIZE, seed=10), WEIGHTS, CHOSEN
    for name in STATES:
        states = [every_other(STACK) if place == name else STACK.clone() for place in STATES]
        with pytest.raises(ShapeError, match=f"{name} must be contiguous"):
            adamw_factored(*states, [factor], step=1, lr=1e-2)
    with pytest.raises(ShapeError, match="out must be contiguous"):
        expand_expert_gradient(*factor, out=every_other(STACK))
