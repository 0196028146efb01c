"""Many videos: worker processes decode while the model computes; results in order, faults as values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from mote_fast.data.loading.view_frames import CropReader, ViewFrames, ViewRequest, crop_frames, folder_of
from mote_fast.data.views import ViewPlan
from mote_fast.errors import MoteError, VideoError
from mote_fast.model.distinct_frames import DistinctFrames, FrameCounts, distinct_frames
from mote_fast.model.video_input import Frames, Layout, name_of, source_of

# Results that may wait for an earlier video.
MAX_WAITING = 256

T = TypeVar("T")


@dataclass(frozen=True)
class StreamPlan(Generic[T]):
    """What to do with each video.

    Attributes:
        request: what to read of it.
        encode: maps crops, uint8 [N, 3, S, S] in parts that may lie on different devices, to features [N, d].
        finish: maps the features [B, views, T, d] of whole videos to a result or an error for each.
        counts: where the frames are counted.
        read: called with what was read of a file.
        workers: processes that decode.
        batch_size: crops, of several videos, in each call of ``encode``; None calls it for one video at a time, with
            the crops of ``request.frames_at_once`` frames.
        time_limit: seconds for decoding one video.
        layout: of decoded frames, see ``source_of``.
        reader: processes that decode, for this stream and further ones; None starts some for this stream.
    """

    request: ViewRequest
    encode: Callable[[list[Tensor]], Tensor]
    finish: Callable[[Tensor], list[T | MoteError]]
    counts: FrameCounts
    read: Callable[[ViewFrames], object]
    workers: int
    batch_size: int | None
    time_limit: float
    layout: Layout | None = None
    reader: CropReader | None = None


@dataclass(frozen=True)
class Streamed(Generic[T]):
    """A video of a stream: its position, its name, its result or its error, and its frames.

    ``num_frames`` is None if they could not be counted; ``replaced_frames`` could not be decoded.
    """

    index: int
    video: str
    result: T | MoteError
    replaced_frames: int
    num_frames: int | None = None


@dataclass
class _Entry:
    """A video on its way, with the distinct crops that are still to be encoded, and the features so far."""

    index: int
    name: str
    plan: ViewPlan | None = None
    distinct: DistinctFrames | None = None
    crops: Tensor | None = None
    features: list[Tensor] = field(default_factory=list)
    replaced: int = 0
    num_frames: int | None = None

    def set_crops(self, crops: Tensor, read: ViewFrames, counts: FrameCounts) -> None:
        """Take uint8 [U, crops, 3, S, S] of what was read."""
        found = distinct_frames(crops.flatten(0, 1))
        counts.add(found)
        self.plan, self.crops = read.plan, found.frames
        self.distinct = found._replace(frames=found.frames[:0])
        self.replaced, self.num_frames = len(read.stand_ins), read.num_frames

    def take(self, most: int) -> Tensor:
        """Take some of the crops."""
        assert self.crops is not None
        part, rest = self.crops[:most], self.crops[most:]
        self.crops = rest if len(rest) else None
        return part

    def gather(self) -> Tensor:
        """Return the features as views, [views, T, d]."""
        assert self.plan is not None
        assert self.distinct is not None
        features = self.distinct.spread(torch.cat(self.features))
        return self.plan.gather(features.unflatten(0, (-1, self.plan.crops)))


def stream(videos: Iterable[Any], plan: StreamPlan[T]) -> Generator[Streamed[T], None, None]:
    """Yield each video's result, in the order given; closing the generator stops the processes.

    An error of one video is its result. One of the iterable is raised after the results of the videos before it.

    Raises:
        BackendError: processes cannot be started here, or the decoding backend is not available.
        ConfigError: the request is out of range.
    """
    running = _Stream(videos, plan)
    try:
        yield from running.results()
    finally:
        running.close()


class _Stream(Generic[T]):
    """The state of ``stream``: videos are read, then wait, then are encoded and finished, then are yielded."""

    def __init__(self, videos: Iterable[Any], plan: StreamPlan[T]) -> None:
        self._source: Iterator[tuple[int, Any]] | None = enumerate(videos)
        self._plan = plan
        self._reader = plan.reader or CropReader(plan.workers, plan.time_limit)
        self._threads = ThreadPoolExecutor(self._reader.concurrency, thread_name_prefix="mote-fast-stream")
        self._reading: dict[Future[ViewFrames], _Entry] = {}
        self._waiting: deque[_Entry] = deque()
        self._done: dict[int, Streamed[T]] = {}
        self._taken = self._given = 0
        self._fault: Exception | None = None
        frames = plan.request.frames * plan.request.views.crops
        # Whoever reads has one video and the next, and the model a whole batch.
        self._ahead = plan.workers + self._reader.concurrency + (plan.batch_size or 0) // frames

    def results(self) -> Iterator[Streamed[T]]:
        while True:
            while self._given in self._done:
                yield self._done.pop(self._given)
                self._given += 1
            self._take_videos()
            self._take_crops()
            if self._waiting:
                self._encode()
            elif self._source is None and self._given == self._taken:
                break
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._plan.reader is None:
            self._reader.close()
        self._threads.shutdown()

    def _take_videos(self) -> None:
        """Take videos from the source until enough are on their way, or one is ready: the source may be slow."""
        while (
            self._source is not None
            and len(self._reading) + len(self._waiting) < self._ahead
            and self._taken - self._given < MAX_WAITING
        ):
            try:
                index, video = next(self._source)
            except StopIteration:
                self._source = None
                return
            except Exception as error:
                # The caller's; the videos before it come first.
                self._source, self._fault = None, error
                return
            self._taken += 1
            self._begin(_Entry(index, name_of(video)), video)
            if self._waiting or self._given in self._done or any(future.done() for future in self._reading):
                return

    def _begin(self, entry: _Entry, video: Any) -> None:
        request = self._plan.request
        try:
            source = source_of(video, self._plan.layout)
            if isinstance(source, Frames):
                found = source.of_views(request)
                entry.set_crops(crop_frames(found, request), found, self._plan.counts)
                self._waiting.append(entry)
                return
        except MoteError as error:
            self._finish(entry, error)
            return
        self._reading[self._threads.submit(self._reader.read, source, request, folder_of(source))] = entry

    def _take_crops(self) -> None:
        """Take what has been read; wait for it if there is nothing else to do."""
        finished = {future for future in self._reading if future.done()}
        if not finished and not self._waiting and self._given not in self._done and self._reading:
            finished = wait(self._reading, return_when=FIRST_COMPLETED).done
        for future in finished:
            entry = self._reading.pop(future)
            try:
                found = future.result()
            except VideoError as error:
                self._finish(entry, error)
                continue
            self._plan.read(found)
            entry.set_crops(found.frames, found, self._plan.counts)
            self._waiting.append(entry)

    def _encode(self) -> None:
        """Run one pass of the image tower, and finish the videos that it completes."""
        parts: list[tuple[_Entry, Tensor]] = []
        views, size = self._plan.request.views, self._plan.batch_size
        room = size or max(1, self._plan.request.frames_at_once // views.crops) * views.crops
        while room and self._waiting:
            entry = self._waiting[0]
            part = entry.take(room)
            parts.append((entry, part))
            room -= len(part)
            if entry.crops is None:
                self._waiting.popleft()
            if size is None:
                break
        features = self._plan.encode([part for _, part in parts])
        for (entry, _), found in zip(parts, features.split([len(part) for _, part in parts]), strict=True):
            entry.features.append(found)
        whole = [entry for entry, _ in parts if entry.crops is None]
        if whole:
            results = self._plan.finish(torch.stack([entry.gather() for entry in whole]))
            for entry, result in zip(whole, results, strict=True):
                self._finish(entry, result)

    def _finish(self, entry: _Entry, result: T | MoteError) -> None:
        self._done[entry.index] = Streamed(entry.index, entry.name, result, entry.replaced, entry.num_frames)
