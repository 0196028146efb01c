"""The loader that decodes with DALI: threads prepare the videos, the DALI graph decodes and transforms them.

The CPU backends decode the videos that DALI cannot decode, or would decode differently from the CPU loader
(``routing``); the frames enter the same batch slots. Labels and order therefore equal the CPU loader's, and the pixels
differ only as two decoders do.
"""

from __future__ import annotations

import functools
import gc
import logging
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import torch
from torch import Tensor

from mote_fast.data.dali.pipeline import DALI_ERRORS, PREFETCH, Device, build_pipeline, why_unavailable
from mote_fast.data.dali.ready_clips import ClipPreparer
from mote_fast.data.dali.runner import DaliRunner, PendingSample, ReadyBatch, SampleQueue, clips_of, other_shapes
from mote_fast.data.dali.threads import DaemonThreads
from mote_fast.data.dali.trial import TRIAL_CLIPS, Trial
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.faults import TIMEOUT, Failure
from mote_fast.data.loading.samples import SampleReader, failure_of
from mote_fast.data.loading.video_loader import DatasetLoader, LoaderOptions
from mote_fast.errors import BackendError, ConfigError, MoteError, one_line

logger = logging.getLogger(__name__)

# Batches prepared beyond those that DALI holds.
_AHEAD = 2


class DaliLoader(DatasetLoader):
    """Loads the videos of a ``VideoDataset`` through DALI; see ``make_loader``.

    ``workers`` are threads, at least one, that read files and decode what DALI does not; DALI gets the same number of
    threads. A video that exceeds the time limit is given up, and its thread is abandoned. A crash of DALI's decoder
    ends the process.

    On a CUDA device the pixels belong to the stream that is current when ``next`` is called.
    """

    def __init__(self, dataset: VideoDataset, options: LoaderOptions) -> None:
        device = torch.device(options.device)
        if device.type not in ("cpu", "cuda"):
            raise ConfigError(f"device must be 'cpu' or 'cuda' for DALI, got {str(options.device)!r}")
        kind: Device = "gpu" if device.type == "cuda" else "cpu"
        reason = why_unavailable(kind)
        if reason is not None:
            raise BackendError(f"backend 'dali' cannot serve: {reason}")
        super().__init__(dataset, options)
        if kind == "gpu" and device.index is None:
            self._device = torch.device("cuda", torch.cuda.current_device())
        threads = max(1, options.workers)
        self._build = functools.partial(
            build_pipeline,
            recipe=dataset.recipe,
            device=kind,
            device_id=self._device.index if kind == "gpu" else None,
            dtype=torch.float16 if options.dtype == torch.float16 else torch.float32,
            threads=threads,
        )
        self._trial = Trial(
            functools.partial(self._build, batch_size=TRIAL_CLIPS, prefetch=1), threads, timed=kind == "gpu"
        )
        self._preparer = ClipPreparer(dataset, kind, self._trial)
        self._reader = SampleReader(dataset, options.training, self._load, self.faults)
        self._stalled: dict[int, Failure] = {}
        self._threads: DaemonThreads | None = DaemonThreads(threads)
        self._engine: DaliRunner | None = None
        self._kept: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch ``start`` on; earlier calls do not affect them.

        Raises:
            ConfigError: the loader is closed.
            ListError: a training batch cannot be filled, see ``SampleReader``.
            BackendError: DALI fails, and no single video is the cause.
        """
        if self._threads is None:
            raise ConfigError("the loader is closed; make another")
        # A pipeline is reused only when it is empty.
        engine, self._engine = self._engine or self._new_engine(), None
        waiting = self._wait_for_batches(epoch, start)
        feed = SampleQueue(waiting)
        engine.serve(feed)
        try:
            while True:
                try:
                    outputs = engine.run(self._device)
                except StopIteration:
                    break
                except MoteError:
                    raise
                except DALI_ERRORS as error:
                    refused = self._find_refused(feed.in_flight)
                    if not refused:
                        raise BackendError(f"DALI fails, and not over one video: {one_line(error)}") from error
                else:
                    yield from feed.pop_empty(self._finish)
                    refused = other_shapes(feed.in_flight[0], outputs.shapes)
                    if not refused:
                        try:
                            yield self._finish(feed.in_flight.popleft(), outputs.pixels)
                        finally:
                            self._keep(outputs.pixels)
                        continue
                # The pipeline is unusable; a new one takes the batches that it held.
                engine, feed = self._new_engine(), SampleQueue(waiting, self._repair(feed.in_flight, refused))
                engine.serve(feed)
                # Pipelines are in reference cycles, with megabytes of buffers that Python does not count.
                gc.collect()
            yield from feed.pop_empty(self._finish)
            self.faults.end_epoch()
            engine.pipeline.reset()
            self._engine = engine
        finally:
            # The caller may have stopped in the middle of the epoch.
            waiting.close()
        reasons = self._preparer.pop_passed_over().most_common()
        if reasons:
            text = ", ".join(f"{videos} ({reason})" for reason, videos in reasons)
            logger.info("epoch %d, videos decoded before DALI: %s", epoch, text)

    def close(self) -> None:
        """Stop the threads and free DALI's memory."""
        if self._threads is not None:
            self._threads.close()
        self._threads = self._engine = None

    def _new_engine(self) -> DaliRunner:
        return DaliRunner(functools.partial(self._build, batch_size=self._options.batch_size, prefetch=PREFETCH))

    def _wait_for_batches(self, epoch: int, start: int) -> Generator[ReadyBatch, None, None]:
        """Prepare batches in order, ``_AHEAD`` of them in advance."""
        begun: deque[list[PendingSample]] = deque()
        try:
            for slots in self._batches(epoch)[start:]:
                begun.append([self._begin(epoch, *place) for place in zip(*slots, strict=True)])
                if len(begun) > _AHEAD:
                    yield [self._wait(place) for place in begun.popleft()]
            while begun:
                yield [self._wait(place) for place in begun.popleft()]
        finally:
            for place in (place for places in begun for place in places):
                place.sample.cancel()

    def _begin(self, epoch: int, position: int, index: int) -> PendingSample:
        if self._threads is None:
            raise ConfigError("the loader was closed in the middle of an epoch")
        place = PendingSample(epoch, position, index)
        # The reader only passes it on to _load.
        target: Any = place
        place.sample = self._threads.submit(functools.partial(self._reader.read, epoch, position, index, target))
        return place

    def _load(self, index: int, epoch: int, place: Any) -> int | Failure:
        """Do as ``samples.load_row``, but into a ``PendingSample``."""
        if index in self._stalled:
            return self._stalled[index]
        place.reading = index, time.monotonic()
        path, planned = self._dataset.items[index].path, False
        try:
            info, plan = self._dataset.plan(index, epoch)
            planned = True
            place.clip = self._preparer.prepare(index, info, plan)
        except Exception as error:
            return failure_of(index, path, error, lasting=not planned)
        return plan.label

    def _wait(self, place: PendingSample) -> PendingSample:
        """Wait for a sample; if its video exceeds the time limit, give the video up and read the sample again."""
        while True:
            reading = place.reading
            left = (
                self._options.time_limit
                if reading is None
                else reading[1] + self._options.time_limit - time.monotonic()
            )
            try:
                place.sample.result(max(0.0, left))
                return place
            except FutureTimeoutError:
                # The sample has not been started, or its stand-in is being read now.
                if place.sample.done() or place.reading != reading or reading is None:
                    continue
            index, threads = reading[0], self._threads
            reason = f"took more than {self._options.time_limit:g} s to read; check the file, or raise time_limit"
            self._stalled[index] = Failure(index, self._dataset.items[index].path, TIMEOUT, reason, lasting=True)
            if threads is not None:
                threads.add()
            place = self._begin(place.epoch, place.position, place.index)

    def _find_refused(self, batches: Iterable[ReadyBatch]) -> dict[int, str]:
        """Retry the clips of each batch one by one; return those that DALI refuses in the first bad batch, and why."""
        for batch in batches:
            clips = [clip for clip in clips_of(batch) if clip.item.is_encoded]
            reasons = ((clip.index, self._trial.why_refused(clip.item, clip.shape)) for clip in clips)
            refused = {index: reason for index, reason in reasons if reason is not None}
            if refused:
                return refused
        return {}

    def _repair(self, batches: Iterable[ReadyBatch], refused: dict[int, str]) -> list[ReadyBatch]:
        """Read the samples of refused videos again; DALI no longer gets these videos."""
        for index, reason in refused.items():
            logger.warning("%s: decoded before DALI from now on: %s", self._dataset.items[index].path, reason)
            self._preparer.refuse(index, reason)
        return [
            [
                self._wait(self._begin(place.epoch, place.position, place.index))
                if place.clip is not None and place.clip.index in refused
                else place
                for place in batch
            ]
            for batch in batches
        ]

    def _finish(self, batch: ReadyBatch, pixels: Tensor | None = None) -> Batch:
        """Make a ``Batch``; ``pixels`` are [B, V * T, 3, S, S], or None if no video could be read."""
        samples = [place.sample.result() for place in batch]
        failures = [failure for sample in samples for failure in sample.failures]
        for failure in failures:
            self.faults.record(failure)
        clips, recipe = clips_of(batch), self._dataset.recipe
        if pixels is None:
            pixels = torch.empty(0, device=self._device)
        return Batch(
            pixels.reshape(-1, recipe.frames, 3, recipe.size, recipe.size).to(self._options.dtype),
            torch.tensor([clip.label for clip in clips], dtype=torch.int64).to(self._device),
            torch.tensor([clip.index for clip in clips], dtype=torch.int64),
            failures,
        )

    def _keep(self, pixels: Tensor) -> None:
        """Keep outputs alive until the work queued on the caller's stream has finished.

        PyTorch frees its own memory in stream order; DALI would overwrite its memory at once.
        """
        if pixels.is_cuda:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(pixels.device))
            self._kept.append((pixels, event))
        while self._kept and self._kept[0][1].query():
            self._kept.popleft()
