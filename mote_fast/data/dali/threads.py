"""Threads that feed DALI. The process does not wait for them at exit, so a hanging decoder cannot keep it alive."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThreads:
    """Runs tasks in the order given, ``count`` at a time."""

    def __init__(self, count: int) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._count = 0
        for _ in range(count):
            self.add()

    def add(self) -> None:
        """Start one more thread, to replace one that hangs."""
        self._count += 1
        threading.Thread(target=self._work, name=f"mote_fast-dali-{self._count}", daemon=True).start()

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Queue a task; cancelling the future removes a task that has not started."""
        future: Future[T] = Future()
        self._tasks.put((future, task))
        return future

    def close(self) -> None:
        """Stop the threads once the queued tasks are done."""
        for _ in range(self._count):
            self._tasks.put(None)

    def _work(self) -> None:
        while (entry := self._tasks.get()) is not None:
            future, task = entry
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(task())
            # Reading the result raises the error.
            except BaseException as error:
                future.set_exception(error)
