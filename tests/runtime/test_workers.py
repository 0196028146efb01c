"""Worker processes: results, errors, crashes and hangs, each attributed to its task."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mote_fast.errors import BackendError, ConfigError, UndecodableVideoError
from mote_fast.runtime import workers
from mote_fast.runtime.workers import WithTensor, WorkerLostError, WorkerPool, run_each


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


@pytest.mark.heavy
def test_each_task_has_its_outcome() -> None:
    """A file that kills or hangs its decoder affects no other file."""
    tasks = ["a", "crash", "b", "damaged", "hang", "c", "d"]
    outcomes = dict(run_each(act, tasks, workers=2, time_limit=2.0))
    assert {task: outcome for task, outcome in outcomes.items() if isinstance(outcome, str)} == {
        task: task.upper() for task in "abcd"
    }
    assert isinstance(outcomes["damaged"], UndecodableVideoError)
    assert outcomes["damaged"].reason == "no video"
    lost = {task: outcome for task, outcome in outcomes.items() if isinstance(outcome, WorkerLostError)}
    assert {task: outcome.timed_out for task, outcome in lost.items()} == {"crash": False, "hang": True}
    assert "SIGKILL" in str(lost["crash"])
    assert "2 s" in str(lost["hang"])


def test_errors_that_are_not_the_files_fault_end_it() -> None:
    """A full disk or a bug must not be reported as damaged files."""
    with pytest.raises(ConfigError, match="disk full"):
        list(run_each(act, ["usage", "a"], workers=1, time_limit=60.0))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(run_each(act, ["bug"], workers=1, time_limit=60.0))


@pytest.mark.parametrize(("workers", "limit"), [(0, 1.0), (1, 0.0)])
def test_limits_are_checked(workers: int, limit: float) -> None:
    """A pool without processes would wait forever."""
    with pytest.raises(
        ConfigError, match="workers must be at least 1" if not workers else "time_limit must be above 0"
    ):
        list(run_each(act, ["a"], workers, limit))


@pytest.mark.heavy
def test_a_task_has_its_own_limit() -> None:
    """One pool serves callers of different patience; a limit that is none is refused before anything starts."""
    others = set(multiprocessing.active_children())
    with contextlib.closing(WorkerPool(act, 1, 60.0)) as pool:
        for limit in (0.0, -1.0, float("nan")):
            with pytest.raises(ConfigError, match="time_limit must be above 0"):
                pool.run("a", time_limit=limit)
        assert set(multiprocessing.active_children()) <= others
        assert pool.run("a") == "A"
        with pytest.raises(WorkerLostError, match=r"took over 0\.1 s"):
            pool.run("hang", time_limit=0.1)
        assert pool.run("b") == "B"


def answer_and_die(task: int) -> int:
    """Returns, and is killed before it gets another task."""
    death = threading.Timer(0.3, os._exit, (9,))
    death.daemon = True
    death.start()
    return 2 * task


@pytest.mark.heavy
def test_a_process_that_dies_between_two_tasks_costs_neither() -> None:
    """When memory runs out, the kernel also kills idle processes."""
    others = set(multiprocessing.active_children())
    outcomes = {}
    for task, outcome in run_each(answer_and_die, range(3), workers=1, time_limit=60.0):
        outcomes[task] = outcome
        while ours := set(multiprocessing.active_children()) - others:
            multiprocessing.connection.wait([child.sentinel for child in ours])
    assert outcomes == {0: 0, 1: 2, 2: 4}


def fill(size: int) -> WithTensor:
    return WithTensor(size, torch.ones(size, dtype=torch.uint8))


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the data of a process")
def test_memory_is_limited_and_the_process_goes_on() -> None:
    """An allocation fails, instead of the machine running out of memory; large tensors come back whole."""
    pool = WorkerPool(fill, 1, 60.0, memory_limit=2**28)
    with contextlib.closing(pool):
        assert pool.run(0).tensor.shape == (0,)
        with pytest.raises(RuntimeError, match="memory"):
            pool.run(2**30)
        answer = pool.run(2**26)
        assert answer.value == 2**26
        assert answer.tensor.min() == 1
        assert len(answer.tensor) == 2**26
        answer.tensor[0] = 2


@pytest.mark.heavy
def test_one_task_at_a_time_starts_one_process() -> None:
    """A caller that never needs a second process does not wait for its start."""
    pool = WorkerPool(act, 4, 60.0)
    with contextlib.closing(pool):
        before = set(multiprocessing.active_children())
        for task in "abc":
            pool.run(task)
        assert len(set(multiprocessing.active_children()) - before) == 1


def own_id(task: int) -> int:
    return os.getpid()


@pytest.mark.heavy
def test_the_end_of_a_program_closes_its_own_pools_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child ends too, with copies of its parent's pools; a task that waits for a closed pool is refused."""
    monkeypatch.setattr(workers, "_open_pools", weakref.WeakSet())
    pool = WorkerPool(own_id, 1, time_limit=300.0)
    worker = pool.run(0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        workers._close_pools()
    assert pool.run(1) == worker
    workers._close_pools()
    with pytest.raises(BackendError, match="closed"):
        pool.run(2)


def hang(task: str) -> None:
    os.write(1, b"hangs\n")
    signal.pause()


def wait_for_a_hanging_task() -> None:
    """A program that neither closes its pool nor catches Ctrl-C, which one started in the background may ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pool = WorkerPool(hang, 1, time_limit=3600.0)
    threads = ThreadPoolExecutor(1)
    waiting = [threads.submit(pool.run, str(number)) for number in range(3)]
    waiting[0].result()


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_program_that_is_ended_leaves_no_process(number: int) -> None:
    """Killed, or by Ctrl-C, which reaches all its processes: none waits for the task, or for a parent that is gone."""
    program = subprocess.Popen(
        [sys.executable, "-c", "from tests.runtime.test_workers import *; wait_for_a_hanging_task()"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "hangs\n"
    # The server and the workers have the same output: it ends once all have ended.
    (os.kill if number == signal.SIGKILL else os.killpg)(program.pid, number)
    rest, _ = program.communicate(timeout=300)
    assert program.returncode == -number
    assert ("KeyboardInterrupt" in rest) == (number == signal.SIGINT)
