"""The one thread that computes: it takes the videos that wait, and encodes them together or one after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from torch import Tensor

from mote_fast.data.loading.view_frames import ViewFrames
from mote_fast.model.video_model import VideoModel
from mote_fast.serve.metrics import Metrics

T = TypeVar("T")


@dataclass
class _Job(Generic[T]):
    """A video, and what to do with its features; or something else to compute, without a video."""

    read: ViewFrames | None
    finish: Callable[[Any], T]
    result: Future[T] = field(default_factory=Future)

    @property
    def crops(self) -> int:
        return 0 if self.read is None else self.read.frames.shape[:2].numel()


class ModelThread:
    """Computes jobs in the order in which they come.

    Args:
        model: nothing else changes it.
        batch_size: crops, of several videos, in one pass of the image tower; None never mixes videos, so that results
            are the library's own to the last bit. See ``VideoModel.encode_views``.
        metrics: where passes are counted.
    """

    def __init__(self, model: VideoModel, batch_size: int | None, metrics: Metrics) -> None:
        self._model = model
        self._batch_size = batch_size
        self._metrics = metrics
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="mote-fast-model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether jobs are still computed."""
        return self._thread.is_alive()

    def submit(self, read: ViewFrames, finish: Callable[[Tensor], T]) -> Future[T]:
        """Encode the views of a video, and call ``finish`` with their features [views, T, d]."""
        return self._put(_Job(read, finish))

    def call(self, compute: Callable[[], T]) -> Future[T]:
        """Compute something else with the model."""
        return self._put(_Job(None, lambda _: compute()))

    def close(self) -> None:
        """End the thread after the jobs that it has."""
        self._jobs.put(None)
        self._thread.join()

    def _put(self, job: _Job[T]) -> Future[T]:
        self._jobs.put(job)
        return job.result

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs: list[_Job[Any]] = [job]
            last = False
            while self._batch_size and sum(each.crops for each in jobs) < self._batch_size and not self._jobs.empty():
                further = self._jobs.get()
                if further is None:
                    last = True
                    break
                jobs.append(further)
            self._compute([each for each in jobs if each.result.set_running_or_notify_cancel()])
            if last:
                return

    def _compute(self, jobs: list[_Job[Any]]) -> None:
        started = time.perf_counter()
        read = [job.read for job in jobs if job.read is not None]
        try:
            features = iter(self._model.encode_views(read, self._batch_size)) if read else iter(())
        # Whatever it is belongs to those who wait for it, as in a pool of threads.
        except Exception as error:
            for job in jobs:
                job.result.set_exception(error)
            return
        for job in jobs:
            own = None if job.read is None else next(features)
            try:
                job.result.set_result(job.finish(own))
            except Exception as error:
                job.result.set_exception(error)
        if read:
            self._metrics.add("videos", len(read))
            self._metrics.time("model", time.perf_counter() - started)
