"""A profile holds the steps that were asked for, and a run without one pays nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mote_fast.training.step_profile import PROFILE_FOLDER, SKIPPED, TABLE_FILE, TRACE_FILE, StepProfile

CPU = torch.device("cpu")


def run(profile: StepProfile, steps: int) -> None:
    with profile:
        for _ in range(steps):
            torch.randn(8, 8) @ torch.randn(8, 8)
            profile.step()


@pytest.mark.parametrize("steps", [SKIPPED + 2, SKIPPED + 9])
def test_two_steps_are_recorded(tmp_path: Path, steps: int) -> None:
    """However long the run is: their operators by time, and a trace in which each step is marked."""
    run(StepProfile(tmp_path, 2, CPU), steps)
    table = (tmp_path / PROFILE_FOLDER / TABLE_FILE).read_text()
    assert "aten::mm" in table
    events = json.loads((tmp_path / PROFILE_FOLDER / TRACE_FILE).read_text())["traceEvents"]
    marked = {each["name"] for each in events if each.get("name", "").startswith("ProfilerStep")}
    assert marked == {f"ProfilerStep#{SKIPPED + number}" for number in range(2)}


def test_nothing_is_written_unasked(tmp_path: Path) -> None:
    """Nor is the profiler started; a run that ends before its first recorded step has no profile either."""
    run(StepProfile(tmp_path, 0, CPU), SKIPPED + 2)
    run(StepProfile(tmp_path, 2, CPU), SKIPPED - 1)
    assert not list(tmp_path.iterdir())
