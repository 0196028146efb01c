"""The regression guard: silent within its bounds, one line for each arm outside them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from guard import MEMORY_BOUND, RATIO_BOUND, violations
from rows import Result, Row


def rows_of(arm: str, ratio: float, memory: float = 1.0, difference: float = 1e-7, stage: str = "clip") -> list[Row]:
    figures = {"ratio": ratio, "memory share": memory, "difference": difference, "tolerance": 1e-4}
    return [Row(stage, "tower", arm, metric, "", figure, x=8) for metric, figure in figures.items()]


BASE = [*rows_of("official", 1.0), Row("clip", "tower", "GEMM peak", "time", "ms", 1.0, x=8)]


@pytest.fixture
def committed(result: Result) -> Result:
    return replace(result, rows=[*BASE, *rows_of("mote_fast", 2.0, 0.8)])


def run_with(committed: Result, ratio: float = 2.0, memory: float = 0.8, difference: float = 1e-7) -> Result:
    return replace(committed, rows=[*BASE, *rows_of("mote_fast", ratio, memory, difference)])


def test_the_committed_run_passes(committed: Result) -> None:
    """A run is within its own bounds."""
    assert violations(committed, committed) == []


@pytest.mark.parametrize(("share", "count"), [(1.01, 0), (0.99, 1)])
def test_a_ratio_may_fall_to_its_bound(committed: Result, share: float, count: int) -> None:
    """Just above the bound is noise, just below it a regression."""
    assert len(violations(run_with(committed, ratio=2.0 * RATIO_BOUND * share), committed)) == count


@pytest.mark.parametrize(("share", "count"), [(0.99, 0), (1.01, 1)])
def test_memory_may_grow_to_its_bound(committed: Result, share: float, count: int) -> None:
    """Memory is compared over the baseline arm's, as time is."""
    assert len(violations(run_with(committed, memory=0.8 * MEMORY_BOUND * share), committed)) == count


def test_outputs_must_stay_equal(committed: Result) -> None:
    """A fast arm that computes something else is caught."""
    (line,) = violations(run_with(committed, difference=1e-2), committed)
    assert line.startswith("tower 8, mote_fast: differs")


def test_an_arm_that_is_gone_is_reported(committed: Result) -> None:
    """Leaving an arm out does not pass for keeping it fast."""
    assert violations(replace(committed, rows=BASE), committed) == ["tower 8, mote_fast: not measured"]


def test_what_is_not_ours_or_was_not_asked_for_is_not_missed(committed: Result) -> None:
    """A machine without one of the decoders passes, and one stage can be checked alone."""
    more = [*committed.rows, *rows_of("torchcodec", 3.0), *rows_of("mote_fast", 3.0, stage="text")]
    assert violations(committed, replace(committed, rows=more)) == []


def test_other_options_cannot_be_compared(committed: Result) -> None:
    """Ratios of another preset are other ratios."""
    other = replace(committed, setting=committed.setting | {"presets": ["ViT-B-16"]})
    assert violations(other, committed) == [
        "the committed run was made with presets=['ViT-test']: run with the same options"
    ]
