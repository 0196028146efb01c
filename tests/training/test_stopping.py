"""Requests to stop: seen between steps and during a wait, agreed on by all processes before they exchange gradients."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.training.stopping import StoppableLoader, Stopped, StopRequest
from tests.evaluation.made_up import MadeUpLoader, made_up_pixels

ALONE = ProcessGroup(0, 1, torch.device("cpu"))


class Processes:
    """All processes of a run, of which another one was asked to stop, or was not."""

    def __init__(self, asked: bool) -> None:
        self.asked = asked
        self.questions: list[bool] = []

    def any(self, flag: bool) -> bool:
        self.questions.append(flag)
        return flag or self.asked


def hanging() -> Iterator[int]:
    """Two items, then a wait that only a signal ends, which another thread sends."""
    yield 1
    yield 2
    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()
    try:
        threading.Event().wait()
    # What a loader does with the faults of a video must not keep the request from ending the wait.
    except Exception:
        yield 3


def test_a_signal_ends_a_wait() -> None:
    """Where a decoder hangs, the next batch may take minutes; a scheduler kills after some 30 seconds."""
    with StopRequest() as stop:
        assert list(stop.until_asked(hanging())) == [1, 2, None]
        assert stop.asked
        # Further waits do not begin.
        assert list(stop.until_asked(hanging())) == [None]


def test_without_a_request_nothing_changes() -> None:
    """All items, and the end of a loader that ends too early is an error as before."""
    with StopRequest() as stop:
        assert list(stop.until_asked(iter([1, 2]))) == [1, 2]
        with pytest.raises(RuntimeError, match="StopIteration"):
            list(stop.batches_of_step(iter([]), 1, ALONE))


def test_signals_outside_a_wait_only_set_the_flag(caplog: pytest.LogCaptureFixture) -> None:
    """A step or a save under way is finished, however often the signal comes."""
    with StopRequest() as stop:
        items = stop.until_asked(iter([1, 2]))
        assert next(items) == 1
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        assert stop.asked
        assert list(items) == [None]
    assert [record.getMessage() for record in caplog.records] == [
        "SIGTERM: saving after the last whole step, then stopping"
    ]


@pytest.mark.parametrize("asked", [False, True])
def test_processes_leave_a_step_together(asked: bool) -> None:
    """One question per step, before the last batch, whichever process was asked."""
    batches: Any = ["a", "b", "c", "d"]
    world: Any = Processes(asked)
    with StopRequest() as stop:
        step = stop.batches_of_step(iter(batches), 3, world)
        assert [next(step), next(step)] == ["a", "b"]
        if asked:
            with pytest.raises(Stopped):
                next(step)
        else:
            assert list(step) == ["c"]
    assert world.questions == [False]


def test_a_process_that_waits_answers_the_others() -> None:
    """Its wait for an earlier batch of the step ends, and it asks the same one question."""
    world: Any = Processes(False)
    with StopRequest() as stop:
        waiting: Any = stop.until_asked(hanging())
        step = stop.batches_of_step(waiting, 4, world)
        assert [next(step), next(step)] == [1, 2]
        with pytest.raises(Stopped):
            next(step)
    assert world.questions == [True]


@pytest.mark.parametrize("asked", [False, True])
def test_processes_leave_a_validation_together(asked: bool) -> None:
    """After their own batches, before the predictions are gathered."""
    world: Any = Processes(asked)
    loader: Any = MadeUpLoader(made_up_pixels(3, views=1, frames=2), 1)
    with StopRequest() as stop:
        batches = StoppableLoader(loader, stop, world).epoch(0)
        found = [next(batches) for _ in range(3)]
        if asked:
            with pytest.raises(Stopped):
                next(batches)
        else:
            assert not list(batches)
    assert [batch.indices.tolist() for batch in found] == [[0], [1], [2]]
    assert world.questions == [False]
