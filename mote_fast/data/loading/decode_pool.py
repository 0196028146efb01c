"""Decoding in worker processes: pixels return in shared memory, a crash or hang returns a ``Failure``."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torch import Tensor

from mote_fast.data.decoding.decode import available_backends
from mote_fast.data.decoding.video_info import MAX_MEMORY
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.samples import failure_of
from mote_fast.data.plan import ClipRecipe
from mote_fast.runtime.workers import WorkerLostError, WorkerPool

logger = logging.getLogger(__name__)

T = TypeVar("T")


class DecodePool(Generic[T]):
    """Processes that decode clips; a crash or hang is retried once and then reported, other videos are unaffected.

    Args:
        decode: takes a task and a row to fill, uint8 [V, T, 3, S, S]; returns the label, the failure, or something
            else. It is pickled and sent to each process.
        recipe: recipe of the clips.
        workers: number of processes.
        time_limit: seconds per video.

    Raises:
        ConfigError: ``decode`` cannot be pickled.
    """

    def __init__(self, decode: Callable[[Any, Tensor], T], recipe: ClipRecipe, workers: int, time_limit: float) -> None:
        self._pool = WorkerPool(
            _Shaped(decode, recipe.clip_shape),
            workers,
            time_limit,
            buffer_bytes=math.prod(recipe.clip_shape),
            # The decoder libraries take seconds to load; this time must not count against the first video.
            start=available_backends,
            memory_limit=MAX_MEMORY,
        )

    def load(self, index: int, path: str, task: Any, row: Tensor) -> T | Failure:
        """Decode a task in a process; callable from as many threads as there are processes.

        Args:
            index: the video's index in its list, for the report.
            path: the video's path, for the report.
            task: argument of ``decode``.
            row: uint8 [V, T, 3, S, S], filled if a label is returned.

        Raises:
            BackendError: processes cannot be started here, or the pool was closed.
            MoteError: ``decode`` raised it.
        """
        losses: list[WorkerLostError] = []
        # The cause of a crash may be external, such as lack of memory.
        for _ in range(2):
            try:
                return self._pool.run(task, row)
            except WorkerLostError as lost:
                logger.warning("%s: %s; the worker is started again", path, str(lost))
                losses.append(lost)
        reason = "tried twice: " + ", then ".join(map(str, losses))
        return failure_of(index, path, WorkerLostError(reason, losses[-1].timed_out), lasting=True)

    def close(self) -> None:
        """Stop the processes."""
        self._pool.close()


class _Shaped:
    """Calls ``decode`` with the worker's buffer as a row of pixels."""

    def __init__(self, decode: Callable[[Any, Tensor], Any], clip_shape: tuple[int, ...]) -> None:
        self._decode = decode
        self._clip_shape = clip_shape

    def __call__(self, task: Any, buffer: Tensor) -> Any:
        return self._decode(task, buffer.view(self._clip_shape))
