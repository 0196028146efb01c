"""Run a function on many files in separate processes: a file that kills or hangs its decoder costs only itself."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from mote_fast.data.loading.faults import CRASH, TIMEOUT
from mote_fast.errors import BackendError, ConfigError, MoteError, VideoError
from mote_fast.runtime.processes import worker_context

# Seconds that a process may take to end.
_END_LIMIT = 5.0

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Fault:
    """Why a task has no result: the error's class, or "DecoderCrash" or "DecoderTimeout"; and its reason."""

    kind: str
    reason: str


@dataclass
class _Worker(Generic[Task]):
    process: Any
    pipe: Connection
    task: Task
    deadline: float


def run_each(
    function: Callable[[Task], Result], tasks: Iterable[Task], processes: int, time_limit: float
) -> Iterator[tuple[Task, Result | Fault]]:
    """Yield each task with what ``function`` returned for it, in the order in which they finish.

    A ``VideoError`` becomes a ``Fault``. A process that dies, or takes longer than ``time_limit`` seconds, is replaced,
    and its task becomes a ``Fault``. Closing the iterator stops the processes.

    Args:
        function: of a module, so that it can be pickled.
        tasks: can be pickled; none is None.
        processes: at least 1.
        time_limit: seconds a task may take.

    Raises:
        ConfigError: ``processes`` or ``time_limit`` is out of range.
        BackendError: processes cannot be started here.
        MoteError: another one that ``function`` raised.
        RuntimeError: ``function`` raised an error that is not the library's; its traceback is the message.
    """
    if processes < 1 or time_limit <= 0:
        raise ConfigError(f"processes and time_limit must be above 0, got {processes} and {time_limit}")
    context = worker_context(function.__module__)
    waiting = iter(tasks)
    workers: list[_Worker[Task]] = []
    try:
        while True:
            while len(workers) < processes and (task := next(waiting, None)) is not None:
                workers.append(_start(context, function, task, time_limit))
            if not workers:
                return
            nearest = min(worker.deadline for worker in workers)
            ready = wait([worker.pipe for worker in workers], timeout=max(0.0, nearest - time.monotonic()))
            for worker in list(workers):
                task = worker.task
                if worker.pipe in ready:
                    outcome = _receive(worker)
                elif time.monotonic() >= worker.deadline:
                    worker.process.kill()
                    outcome = Fault(TIMEOUT, f"took longer than {time_limit:g} s and was stopped")
                else:
                    continue
                dead = isinstance(outcome, Fault) and outcome.kind in (CRASH, TIMEOUT)
                following = None if dead else next(waiting, None)
                if following is None or not _give(worker, following, time_limit):
                    workers.remove(worker)
                    _stop(worker)
                    if following is not None:
                        workers.append(_start(context, function, following, time_limit))
                yield task, outcome
    finally:
        for worker in workers:
            worker.process.kill()
            _stop(worker)


def _start(context: Any, function: Callable[[Task], Result], task: Task, time_limit: float) -> _Worker[Task]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs), daemon=True)
    process.start()
    # With our copy closed, the death of the process shows as the end of the pipe.
    theirs.close()
    # The process answers once its imports are done, which are not the first task's time.
    try:
        ours.recv()
    except (EOFError, OSError) as error:
        raise BackendError(
            "a worker process cannot start, see its message above; a script needs the guard if __name__ == '__main__':"
        ) from error
    ours.send(task)
    return _Worker(process, ours, task, time.monotonic() + time_limit)


def _give(worker: _Worker[Task], task: Task, time_limit: float) -> bool:
    """Hand on the next task; False if the process has died since its last answer, which is not that task's doing."""
    worker.task, worker.deadline = task, time.monotonic() + time_limit
    try:
        worker.pipe.send(task)
    except OSError:
        return False
    return True


def _receive(worker: _Worker[Any]) -> Any:
    try:
        outcome = worker.pipe.recv()
    except (EOFError, ConnectionError):
        worker.process.join()
        return Fault(CRASH, f"its process died (exit code {worker.process.exitcode}); replace the file")
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _stop(worker: _Worker[Any]) -> None:
    # The end of its pipe ends the process; one that hangs in the kernel, on a dead network disk, is left behind.
    worker.pipe.close()
    worker.process.join(_END_LIMIT)


def _serve(function: Callable[[Task], Result], pipe: Connection) -> None:
    """Answer tasks until the pipe closes."""
    pipe.send(None)
    while True:
        try:
            task = pipe.recv()
            outcome: Any = function(task)
        except (EOFError, KeyboardInterrupt):
            return
        except VideoError as error:
            outcome = Fault(type(error).__name__, error.reason)
        except MoteError as error:
            outcome = error
        except Exception:
            # The text, as not every exception survives pickling.
            outcome = RuntimeError(traceback.format_exc())
        pipe.send(outcome)
