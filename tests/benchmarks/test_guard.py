"""The regression guard: silent within its bounds, one line for each arm outside them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from guard import MEMORY_BOUND, RATIO_BOUND, violations


def row(arm: str, ratio: float | None, *, mib: float | None = 100.0, difference: float | None = 1e-7) -> dict[str, Any]:
    return {
        "stage": "clip",
        "workload": "tower",
        "arm": arm,
        "ratio": ratio,
        "peak_mib": mib,
        "difference": difference,
        "tolerance": 1e-4,
    }


COMMITTED: dict[str, Any] = {
    "setting": {"preset": "tiny", "frames": 8, "experts": 4, "quick": True, "dtype": "float32", "device": "cpu"},
    "rows": [row("released", 1.0), row("mote_fast", 2.0, mib=80.0), row("GEMM peak", None, mib=None, difference=None)],
}


def run_with(**changed: Any) -> dict[str, Any]:
    run = deepcopy(COMMITTED)
    run["rows"][1] |= changed
    return run


def test_the_committed_run_passes() -> None:
    """A run is within its own bounds."""
    assert violations(COMMITTED, COMMITTED) == []


@pytest.mark.parametrize(("share", "count"), [(1.01, 0), (0.99, 1)])
def test_a_ratio_may_fall_to_its_bound(share: float, count: int) -> None:
    """Just above the bound is noise, just below it a regression."""
    assert len(violations(run_with(ratio=2.0 * RATIO_BOUND * share), COMMITTED)) == count


@pytest.mark.parametrize(("share", "count"), [(0.99, 0), (1.01, 1)])
def test_memory_may_grow_to_its_bound(share: float, count: int) -> None:
    """Memory is compared over the baseline arm's, as time is."""
    assert len(violations(run_with(peak_mib=80.0 * MEMORY_BOUND * share), COMMITTED)) == count


def test_little_memory_is_noise() -> None:
    """A few MiB say nothing."""
    committed, run = deepcopy(COMMITTED), run_with(peak_mib=30.0)
    for each in (committed, run):
        each["rows"][0]["peak_mib"] = 10.0
    assert violations(run, committed) == []


def test_outputs_must_stay_equal() -> None:
    """A fast arm that computes something else is caught."""
    lines = violations(run_with(difference=1e-2), COMMITTED)
    assert len(lines) == 1
    assert "tower, mote_fast: differs" in lines[0]


def test_an_arm_that_is_gone_is_reported() -> None:
    """Leaving an arm out does not pass for keeping it fast."""
    run = deepcopy(COMMITTED)
    del run["rows"][1]
    assert violations(run, COMMITTED) == ["tower, mote_fast: not measured"]


def test_arms_that_take_the_path_apart_are_not_guarded() -> None:
    """A machine without one of the decoders passes."""
    committed = deepcopy(COMMITTED)
    committed["rows"].append(row("torchcodec", 3.0))
    assert violations(COMMITTED, committed) == []


def test_stages_that_were_not_asked_for_are_not_missed() -> None:
    """One stage can be checked alone."""
    run = deepcopy(COMMITTED)
    committed = deepcopy(COMMITTED)
    committed["rows"].append(row("mote_fast", 3.0) | {"stage": "text", "workload": "text"})
    assert violations(run, committed) == []


def test_other_options_cannot_be_compared() -> None:
    """Ratios of another preset are other ratios."""
    run = deepcopy(COMMITTED)
    run["setting"]["preset"] = "vit-b-16"
    assert violations(run, COMMITTED) == ["the committed run was made with preset=tiny: run with the same options"]
