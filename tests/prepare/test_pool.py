"""The process pool: results, faults, crashes and hangs, each with its task."""

from __future__ import annotations

import os
import signal

import pytest

from mote_fast.errors import ConfigError, UndecodableVideoError
from mote_fast.prepare.pool import Fault, run_each


def act(task: str) -> str:
    if task == "damaged":
        raise UndecodableVideoError(task, "no video")
    if task == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "hang":
        signal.pause()
    if task == "usage":
        raise ConfigError("disk full")
    if task == "bug":
        raise ZeroDivisionError
    return task.upper()


def test_each_task_has_its_outcome() -> None:
    """A file that kills or hangs its decoder costs itself alone."""
    tasks = ["a", "crash", "b", "damaged", "hang", "c", "d"]
    outcomes = dict(run_each(act, tasks, processes=2, time_limit=2.0))
    assert {task: outcome for task, outcome in outcomes.items() if not isinstance(outcome, Fault)} == {
        task: task.upper() for task in "abcd"
    }
    kinds = {task: outcome.kind for task, outcome in outcomes.items() if isinstance(outcome, Fault)}
    assert kinds == {"crash": "DecoderCrash", "damaged": "UndecodableVideoError", "hang": "DecoderTimeout"}


def test_errors_that_are_not_the_files_fault_end_it() -> None:
    """A full disk or a bug must not be reported as so many damaged files."""
    with pytest.raises(ConfigError, match="disk full"):
        list(run_each(act, ["usage", "a"], processes=1, time_limit=60.0))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(run_each(act, ["bug"], processes=1, time_limit=60.0))


@pytest.mark.parametrize(("processes", "limit"), [(0, 1.0), (1, 0.0)])
def test_limits_are_checked(processes: int, limit: float) -> None:
    """No process at all would wait forever."""
    with pytest.raises(ConfigError, match="above 0"):
        list(run_each(act, ["a"], processes, limit))
