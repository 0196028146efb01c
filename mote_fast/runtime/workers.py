"""Monitored worker processes: a task that crashes or hangs its process affects no other task.

Each process has its own pipe, and gets one task at a time. A process that dies therefore holds no lock that others wait
for, and the task that killed it is known. (``torch.utils.data.DataLoader`` drops all workers and their finished batches
when one worker dies, and does not report which sample caused it. ``concurrent.futures`` and pebble share one queue and
its lock between their processes, and cannot distinguish the start of a process from its first task.)
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from mote_fast.errors import BackendError, ConfigError, MoteError, VideoError
from mote_fast.runtime.shared_tensor import receive_tensor, send_tensor
from mote_fast.runtime.worker_process import context, make_process

# Seconds that a process may take to start: imports over a network file system are slow.
START_LIMIT = 300.0
# Seconds that a killed process may take to end. One that hangs in the kernel, on a dead network disk, is abandoned.
END_LIMIT = 5.0

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerLostError(Exception):
    """A process died, or was stopped after its time limit. Internal: users see a ``Failure``.

    Attributes:
        timed_out: whether the process was stopped.
    """

    def __init__(self, reason: str, timed_out: bool) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class WithTensor(NamedTuple):
    """A result that holds a uint8 tensor, which is sent through shared memory and not through the pipe."""

    value: Any
    tensor: Tensor


class WorkerPool:
    """Calls a function in ``workers`` processes, each started on first use and kept until ``close``.

    On Linux the processes are forked from a server that has imported the function's module and has no threads. A fork
    of this process would copy locks held by its threads, and a CUDA context that a child cannot use. A script needs the
    guard ``if __name__ == "__main__":`` if the function refers to it, and elsewhere than on Linux.

    Attributes:
        owner: id of the process that made the pool.

    Args:
        function: takes a task, and a uint8 tensor [buffer_bytes] to write to if ``buffer_bytes`` is above 0. It is
            pickled and sent to each process.
        workers: number of processes, at least 1.
        time_limit: seconds per task for which ``run`` gives none.
        buffer_bytes: size of the memory that each process shares with this one.
        start: called in each process before its first task; its time does not count against the time limit.
        memory_limit: bytes that a process may take beyond what it has at its start; then its allocations fail. Linux
            only.

    Raises:
        ConfigError: an argument is out of range, or ``function`` cannot be pickled.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        workers: int,
        time_limit: float,
        *,
        buffer_bytes: int = 0,
        start: Callable[[], object] | None = None,
        memory_limit: int | None = None,
    ) -> None:
        if workers < 1:
            raise ConfigError(f"workers must be at least 1, got {workers}")
        self._time_limit = _checked(time_limit)
        try:
            pickled = pickle.dumps((function, start, memory_limit))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"worker processes need a data set that can be pickled ({error}); use workers=0"
            ) from error
        module = getattr(function, "__module__", type(function).__module__)
        self._workers = [_Worker(pickled, module, buffer_bytes) for _ in range(workers)]
        # The last one used comes first, so that one task at a time starts one process.
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._closed = False
        self.owner = os.getpid()
        _open_pools.add(self)

    def run(self, task: Any, out: Tensor | None = None, time_limit: float | None = None) -> Any:
        """Return the function's result for a task; callable from as many threads as there are processes.

        Args:
            task: a picklable value.
            out: uint8; the process's buffer is copied into it.
            time_limit: seconds for this task; None takes the pool's.

        Raises:
            ConfigError: the time limit is not above 0.
            WorkerLostError: the process died, or was stopped after its time limit.
            BackendError: processes cannot be started here, or the pool was closed.
            MoteError: the function raised it.
            RuntimeError: the function raised an error that is not the library's; its traceback is the message.
        """
        limit = self._time_limit if time_limit is None else _checked(time_limit)
        if self._closed:
            raise BackendError("the worker pool was closed while a task waited")
        worker = self._idle.get()
        try:
            return worker.run(task, out, limit)
        except WorkerLostError as lost:
            if self._closed:
                raise BackendError("the worker pool was closed while a task ran") from lost
            raise
        finally:
            # The process may have started while the pool was being closed.
            if self._closed and (process := worker.kill()) is not None:
                process.join(END_LIMIT)
            self._idle.put(worker)

    def close(self) -> None:
        """Stop the processes; a ``run`` waiting in another thread raises."""
        self._closed = True
        processes = [process for worker in self._workers if (process := worker.kill()) is not None]
        for process in processes:
            process.join(END_LIMIT)


def _checked(time_limit: float) -> float:
    # Not NaN either.
    if not time_limit > 0:
        raise ConfigError(f"time_limit must be above 0, got {time_limit}")
    return time_limit


def run_each(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int, time_limit: float
) -> Generator[tuple[Task, Result | VideoError | WorkerLostError]]:
    """Yield each task with its result, in the order in which tasks finish.

    A task that raised ``VideoError`` or lost its process yields the ``VideoError`` or ``WorkerLostError`` instead of a
    result. Closing the iterator stops the processes.

    Args:
        function: a module-level function, so that it can be pickled.
        tasks: picklable values, consumed as processes become free.
        workers: number of processes, at least 1.
        time_limit: seconds per task.

    Raises:
        ConfigError, BackendError, MoteError, RuntimeError: see ``WorkerPool``.
    """
    pool = WorkerPool(function, workers, time_limit)

    def outcome(task: Task) -> tuple[Task, Any]:
        try:
            return task, pool.run(task)
        except (VideoError, WorkerLostError) as error:
            return task, error

    running: set[Future[tuple[Task, Any]]] = set()
    with ThreadPoolExecutor(workers) as threads:
        try:
            for task in tasks:
                running.add(threads.submit(outcome, task))
                if len(running) == workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.close()


# Python waits for the threads of a program that ends, also after Ctrl-C, and they for their tasks: a hanging decoder
# would keep the program for minutes. Only this hook comes before that wait, and ``atexit`` after it.
_open_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _close_pools() -> None:
    for pool in list(_open_pools):
        # A forked child has copies of its parent's pools.
        if pool.owner == os.getpid():
            pool.close()


getattr(threading, "_register_atexit", atexit.register)(_close_pools)


class _Worker:
    """The parent's side of one process and its pipe; a lost process is started again."""

    def __init__(self, pickled: bytes, module: str, buffer_bytes: int) -> None:
        self._pickled = pickled
        self._module = module
        self._buffer_bytes = buffer_bytes
        self._process: Any = None

    def run(self, task: Any, out: Tensor | None, time_limit: float) -> Any:
        # This task did not cause the death of an idle process, for example when memory runs out.
        if self._process is None or self._process.exitcode is not None:
            self._start()
        try:
            self._connection.send(task)
            if not self._connection.poll(time_limit):
                raise self._lost(f"took over {time_limit:g} s", timed_out=True)
            answer = self._connection.recv()
            if isinstance(answer, WithTensor):
                answer = answer._replace(tensor=receive_tensor(self._connection))
        except (EOFError, OSError) as error:
            raise self._lost("its process died") from error
        if isinstance(answer, Exception):
            raise answer
        if out is not None:
            out.view(-1).copy_(self._buffer)
        return answer

    def kill(self) -> Any:
        """Kill the process, and return it; None if there is none."""
        # Read once: another thread may lose the process meanwhile.
        process = self._process
        if process is not None:
            process.kill()
        return process

    def _start(self) -> None:
        if multiprocessing.current_process().daemon:
            raise BackendError(
                "a worker process of a loader cannot start processes of its own; there, use one video at a time, or "
                "workers=0"
            )
        starting = context()
        if sys.platform == "linux":
            starting.set_forkserver_preload([__name__, self._module])
        self._connection, theirs = starting.Pipe()
        # A new buffer: a process lost before may be stuck in the kernel, and write to its buffer when it wakes up.
        shared = starting.RawArray("B", self._buffer_bytes) if self._buffer_bytes else None
        if shared is not None:
            self._buffer = torch.frombuffer(shared, dtype=torch.uint8)
        process = make_process(
            _serve,
            (theirs, self._pickled, shared, os.getpid()),
            "mote-fast-worker",
            needs_main=b"__main__" in self._pickled,
        )
        process.start()
        self._process = process
        # After this copy is closed, the pipe ends when the process dies.
        theirs.close()
        try:
            ready = self._connection.poll(START_LIMIT) and self._connection.recv()
        except (EOFError, OSError):
            ready = False
        if not ready:
            lost = self._lost("the process did not start")
            raise BackendError(
                f"a worker process cannot start ({lost}), see its message above; a script that "
                "defines the data set's class, or does not run on Linux, needs the guard if __name__ == '__main__': "
                "around what starts workers; or use workers=0"
            )

    def _lost(self, reason: str, timed_out: bool = False) -> WorkerLostError:
        process, self._process = self._process, None
        process.kill()
        process.join(END_LIMIT)
        self._connection.close()
        code = process.exitcode
        if not timed_out and code is not None:
            reason += f" ({signal.Signals(-code).name})" if code < 0 else f" (exit status {code})"
        return WorkerLostError(reason, timed_out)


def _serve(connection: Connection, pickled: bytes, shared: Any, parent: int) -> None:
    """Run one task after another until the pipe or the parent ends."""
    # Ctrl-C reaches every process of the terminal; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    function, start, memory_limit = pickle.loads(pickled)
    buffers = [] if shared is None else [torch.frombuffer(shared, dtype=torch.uint8)]
    if start is not None:
        start()
    if memory_limit is not None:
        _limit_memory(memory_limit)
    # The parent may end at any moment.
    with suppress(BrokenPipeError, ConnectionResetError):
        _answer(connection, function, buffers, parent)


def _answer(connection: Connection, function: Callable[..., Any], buffers: Sequence[Tensor], parent: int) -> None:
    connection.send(True)
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = function(task, *buffers)
        except MoteError as error:
            answer = error
        except Exception:
            # The text only, because not every exception survives pickling.
            answer = RuntimeError(traceback.format_exc())
        if isinstance(answer, WithTensor):
            connection.send(answer._replace(tensor=None))
            send_tensor(connection, answer.tensor, parent)
        else:
            connection.send(answer)


def _limit_memory(limit: int) -> None:
    """Make allocations fail once this process has ``limit`` bytes more than now."""
    if sys.platform != "linux":
        return
    import resource

    # Unlike the address space, which libraries reserve by the gigabyte, the data are what a process can write to.
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    data = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (data * 1024 + limit, hard))


def _end_with_parent() -> None:
    # The end of the pipe is noticed only between two tasks.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
