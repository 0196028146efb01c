"""Layouts of all arguments, on a CPU and in plain PyTorch; tests/kernels/interpreted has the same for the kernels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from mote_fast.errors import ShapeError
from mote_fast.ops.implementations import Implementation, implemented_by
from tests.ops.layout_cases import (
    ARGUMENTS,
    CHOSEN,
    LAYOUTS,
    PLACES,
    SIZE,
    STACK,
    STATES,
    WEIGHTS,
    adamw_of,
    assert_any_layout,
    assert_any_layout_of_adamw,
    choices,
    every_other,
    normal,
    operator,
    states_and_factors,
)

implementations = pytest.mark.parametrize("implementation", ["cpu", "torch"])


@implementations
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_each_argument_alone(name: str, layout: str, implementation: Implementation) -> None:
    """Values and gradients, whichever argument or gradient of an output has the layout."""
    for place in PLACES[name]:
        assert_any_layout(name, implementation, {place: layout})


@implementations
@given(choices())
def test_all_arguments_together(implementation: Implementation, choice: tuple[str, dict[str, str]]) -> None:
    """Any layout of each."""
    assert_any_layout(choice[0], implementation, choice[1])


@implementations
@given(states_and_factors)
def test_adamw_and_the_expansion(implementation: Implementation, chosen: dict[str, str]) -> None:
    """Factors of any layout; parameters and moments anywhere in their storage."""
    assert_any_layout_of_adamw(implementation, chosen)


@implementations
@pytest.mark.parametrize("name", STATES)
def test_what_is_updated_must_be_contiguous(name: str, implementation: Implementation) -> None:
    """PyTorch's update ignores strides: it would write into the gaps, without a word."""
    states = [every_other(STACK) if place == name else STACK.clone() for place in STATES]
    factor = (normal(SIZE, seed=13), normal(SIZE, seed=14), WEIGHTS, CHOSEN)
    with pytest.raises(ShapeError, match=f"{name} must be contiguous"):
        adamw_of(implementation).adamw_factored(*states, [factor], 1, 1e-2, (0.9, 0.999), 1e-8, 0.2)


WRONG = {
    "weights": {"dtype": torch.int64, "device": torch.device("meta"), "eight": torch.float8_e4m3fn},
    "index": {"dtype": torch.int32, "device": torch.device("meta"), "floating": torch.float32},
}


@implementations
@pytest.mark.parametrize("name", [name for name in ARGUMENTS if name != "quick_gelu"])
def test_wrong_devices_and_dtypes_are_named(name: str, implementation: Implementation) -> None:
    """Of merge weights and indices, for every operator that takes them: a kernel would read other memory."""
    arguments, _ = ARGUMENTS[name]
    for place in WRONG.keys() & arguments.keys():
        for wrong in WRONG[place].values():
            with implemented_by(implementation), pytest.raises(ShapeError, match=rf"{place} must be .*got {wrong}"):
                operator(name)(**{**arguments, place: arguments[place].to(wrong)})
