from __future__ import annotations

import pytest
import torch

from mote_fast.timeline.rejection import Rejecter, levels_of, otsu, threshold_of

TWO_KINDS = torch.cat((torch.linspace(0.1, 0.2, 40), torch.linspace(0.5, 0.6, 20)))


def test_otsu_divides_two_groups() -> None:
    """The threshold lies between them, however unequal they are; levels that are all equal have one group."""
    value, low, high = otsu(TWO_KINDS)
    assert value == pytest.approx(0.35)
    assert (low, high) == (pytest.approx(0.15), pytest.approx(0.55))
    assert otsu(torch.full((5,), 0.25)) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("known", "scale", "expected"),
    [(None, 100, 0.35), (0.3, 100, 0.35), (0.7, 100, 0.7), (0.05, 100, 0.05), (None, 5, None)],
)
def test_automatic_threshold(known: float | None, scale: float, expected: float | None) -> None:
    """Two kinds of windows are divided; the model's level decides what one kind is, and without it none is rejected."""
    found = threshold_of(Rejecter("auto"), TWO_KINDS, known, scale)
    assert found.value == (None if expected is None else pytest.approx(expected))
    assert found.how.startswith("auto: ")


def test_levels() -> None:
    """A level is what the best label has above the reference, or above the background that competes with it."""
    cosines, reference = torch.tensor([[0.5, 0.75]]), torch.tensor([0.25])
    background = torch.tensor([[0.125, 0.5]])
    assert levels_of(Rejecter("auto"), cosines, reference, background[:, :0]).tolist() == [0.5]
    assert levels_of(Rejecter("words"), cosines, reference, background).tolist() == [0.25]
