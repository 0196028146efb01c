"""Fits: a known law must come out, whatever noise-free points it is given."""

from __future__ import annotations

import pytest
from fits import exponent, line
from hypothesis import given
from hypothesis import strategies as st


@given(st.floats(-3, 3), st.floats(0.1, 10))
def test_exponent_of_a_power_law(power: float, factor: float) -> None:
    """Points on a power law give its exponent back."""
    assert exponent([(x, factor * x**power) for x in (1, 2, 4, 8, 16)]) == pytest.approx(power, abs=1e-9)


def test_exponent_at_the_end_leaves_fixed_cost_behind() -> None:
    """With a fixed cost, the last points are nearer to the order of the work than all points are."""
    points = [(x, 100.0 + x) for x in (1, 10, 100, 1000, 10_000)]
    assert exponent(points) < exponent(points, last=3) < 1.0


@given(st.floats(-100, 100), st.floats(-10, 10))
def test_line_through_exact_points(intercept: float, slope: float) -> None:
    """Points on a line give it back."""
    found = line([(x, intercept + slope * x) for x in (0, 1, 5, 9)])
    assert found.intercept == pytest.approx(intercept, abs=1e-6)
    assert found.slope == pytest.approx(slope, abs=1e-6)


def test_explained_variance() -> None:
    """What a line does not explain lowers its r2; a hand-worked case."""
    assert line([(0, 0), (1, 1), (2, 0), (3, 1)]).r2 == pytest.approx(0.2)


def test_one_point_has_no_line() -> None:
    """A slope of one place is refused, not invented."""
    with pytest.raises(ValueError, match="two different x"):
        line([(2.0, 1.0), (2.0, 3.0)])
