"""From an uploaded video to its result: watched processes decode, and one thread computes with the model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from mote_fast.data.loading.view_frames import CropReader, ViewFrames, ViewRequest
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.rejecting import Refuser
from mote_fast.model.results import Prediction, rank
from mote_fast.serve.limits import MAX_TIMELINE_SECONDS, Limits, RefusedError
from mote_fast.serve.metrics import Metrics
from mote_fast.serve.model_thread import ModelThread
from mote_fast.timeline.rejection import Background, Rejection
from mote_fast.timeline.timeline import Timeline

# Label sets whose class features are kept.
_KEPT_SETS = 16

T = TypeVar("T")


class Engine:
    """A model at work for a server.

    Args:
        model: for inference; nothing else changes it meanwhile. It gets the limit for decoding.
        limits: of a video.
        workers: processes that decode.
        batch_size: see ``ModelThread``.

    Attributes:
        model: the model.
        limits: the limits.
        metrics: what was done.
    """

    def __init__(
        self, model: VideoClassifier, limits: Limits, *, workers: int = 1, batch_size: int | None = None
    ) -> None:
        self.model = model
        self.limits = limits
        self.metrics = Metrics()
        self._workers = workers
        self._closed = threading.Event()
        self._reader = CropReader(workers, limits.decode_seconds)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="mote-fast-decode")
        # Threads may share a model: a long video must not keep short ones waiting.
        self._timelines = ThreadPoolExecutor(1, thread_name_prefix="mote-fast-timeline")
        model.decode_time_limit = limits.decode_seconds
        self._computing = ModelThread(model, batch_size, self.metrics)
        self._classes: OrderedDict[tuple[str, ...], Tensor] = OrderedDict()

    def start(self, video: str) -> None:
        """Start the processes with a video that can be read, and compile, so that no request waits for either."""
        prepared = self._computing.call(self.model.prepare_to_serve)
        request = self.request("1x1")
        for reading in [self._threads.submit(self._reader.read, video, request, None) for _ in range(self._workers)]:
            reading.result()
        prepared.result()

    @property
    def ready(self) -> bool:
        """Whether videos can be taken."""
        return self._computing.alive

    async def classify(
        self, path: str, labels: Sequence[str], views: str, topk: int | None, reject: Rejection
    ) -> tuple[list[Prediction], int]:
        """Rank labels for a video, as ``VideoClassifier.classify`` does; return its replaced frames too.

        Raises:
            MoteError: as ``classify``; ``VideoError`` also for a video that is too long.
        """

        refuser = Refuser(self.model, reject)

        def finish(features: Tensor) -> list[Prediction]:
            classes = self._class_features(labels)
            ranked = rank(self.model.scores_from_features(features, classes), labels, topk)
            return [] if refuser.refuses(features, classes) else ranked

        read = await self._read(path, self.request(views))
        return await asyncio.wrap_future(self._computing.submit(read, finish)), len(read.stand_ins)

    async def embed(self, path: str, request: ViewRequest) -> tuple[Tensor, int]:
        """Return the embedding of a video, as ``VideoClassifier.embed`` does, and its replaced frames."""
        read = await self._read(path, request)
        return await asyncio.wrap_future(self._computing.submit(read, self.model.embedding_from_features)), len(
            read.stand_ins
        )

    async def timeline(
        self, path: str, labels: Sequence[str], background: Background, window: float | None, several: bool
    ) -> Timeline:
        """Say when which label fits a video, as ``VideoClassifier.timeline`` does, one video at a time.

        Raises:
            MoteError: as ``timeline``; ``VideoError`` also for a video that is too long.
        """
        # Whether it can be read at all, and how long it lasts, before it takes the place of others.
        await self._read(path, self.request("1x1"))
        classes = await self.compute(lambda: self._class_features(labels))

        def compute() -> Timeline:
            last = time.monotonic() + MAX_TIMELINE_SECONDS

            def check(seconds: float, duration: float) -> None:
                if self._closed.is_set():
                    raise RefusedError(503, "the server ends")
                if time.monotonic() > last:
                    raise RefusedError(422, f"the timeline takes over {MAX_TIMELINE_SECONDS} s; send a shorter video")

            return self.model.timeline(
                path,
                labels,
                background=background,
                window=window,
                several=several,
                class_features=classes,
                progress=check,
            )

        return await asyncio.get_running_loop().run_in_executor(self._timelines, compute)

    async def compute(self, function: Callable[[], T]) -> T:
        """Compute something else with the model, in its turn."""
        return await asyncio.wrap_future(self._computing.call(function))

    def request(self, views: str) -> ViewRequest:
        """What to read of a video for these views.

        Raises:
            ConfigError: the views are malformed, or not for this model.
        """
        request = self.model.view_request(self.model.check_views(views))
        return replace(request, longest=self.limits.video_seconds)

    def close(self) -> None:
        """End the threads and processes; a video that is being read, and a timeline, are given up."""
        self._closed.set()
        self._reader.close()
        self._timelines.shutdown()
        self._threads.shutdown()
        self._computing.close()

    async def _read(self, path: str, request: ViewRequest) -> ViewFrames:
        def read() -> ViewFrames:
            started = time.perf_counter()
            found = self._reader.read(path, request, None)
            self.metrics.time("decode", time.perf_counter() - started)
            return found

        found = await asyncio.get_running_loop().run_in_executor(self._threads, read)
        self.model.note_stand_ins(found)
        return found

    def _class_features(self, labels: Sequence[str]) -> Tensor:
        """Return the class features of a label set; the thread of the model alone calls it."""
        key = tuple(labels)
        if key not in self._classes:
            self._classes[key] = self.model.class_features(labels)
            if len(self._classes) > _KEPT_SETS:
                self._classes.popitem(last=False)
        self._classes.move_to_end(key)
        return self._classes[key]
