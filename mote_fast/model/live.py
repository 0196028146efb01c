"""Models over live sources: windows of a camera, a network stream, a file or frames that come one after another."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mote_fast.data.live.live_address import live_address
from mote_fast.data.live.live_reader import LiveRequest, nearest_tick
from mote_fast.data.live.live_source import Interruption, read_live
from mote_fast.data.loading.clock_frames import ClockChunk
from mote_fast.data.transforms import evaluation_crops
from mote_fast.errors import ConfigError
from mote_fast.model.caution import warn_user
from mote_fast.model.label_input import Labels
from mote_fast.model.rejecting import least_level
from mote_fast.model.timelines import TimelineModel
from mote_fast.model.video_input import Frames, Layout, source_of
from mote_fast.runtime.checks import check_finite
from mote_fast.timeline.live_window import LiveWindow
from mote_fast.timeline.rejection import Rejecter, Rejection, levels_of, read_rejection
from mote_fast.timeline.scorer import WindowScorer, WindowScores
from mote_fast.timeline.time_segments import probabilities
from mote_fast.timeline.windows import WindowPlan, plan_windows

Frame: TypeAlias = Tensor | np.ndarray | Image.Image
# A camera by its number, an address or a path; or frames, each alone or after its time in seconds.
LiveSource: TypeAlias = int | str | os.PathLike[str] | Iterable[Frame] | Iterable[tuple[float, Frame]]


class LiveModel(TimelineModel):
    """A model that watches live sources."""

    def stream(
        self,
        source: LiveSource,
        labels: Labels | None = None,
        *,
        fps: float | None = None,
        window: float | None = None,
        hop: float | None = None,
        background: Rejection = None,
        retry_seconds: float = math.inf,
        class_features: Tensor | None = None,
        layout: Layout | None = None,
        frame_rate: float | None = None,
    ) -> Generator[LiveWindow | Interruption]:
        """Yield what each window of a live source shows, as soon as its last frame has come.

        A camera and a stream are read by another process. Where the model is slower than the source, frames are dropped
        rather than queued, and the frame before stands in for them, so that a result is late by a hop and its own
        computation at most; ``LiveWindow.dropped`` counts them. A file is read as ``timeline`` reads it, and frames
        that are given as they come.

        >>> for found in clf.stream("rtsp://192.0.2.1/door", ["a person waits", "a parcel is left"], fps=4):
        ...     print(found)

        Args:
            source: the number of a camera (Linux); "/dev/video0"; an address, rtsp://, http://, rtmp://, tcp:// or
                udp://, not of a playlist; the path of a file; or an iterable of frames, as ``classify`` takes them, or
                of (time, frame) with seconds that ascend.
            labels: as in ``classify``.
            fps: as in ``timeline``, as ``window`` and ``hop``.
            window: seconds of a window.
            hop: seconds from a window to the next.
            background: as in ``timeline``; "auto" takes the model's ``reject_level``, and nothing is an example.
            retry_seconds: seconds after which an interrupted stream is given up; 0 ends at the first interruption.
            class_features: as in ``classify``, as ``layout``.
            layout: the axes of frames without the first, such as "THWC" for frames [H, W, 3].
            frame_rate: of frames without times, per second; None takes the time at which each comes.

        Yields:
            A ``LiveWindow`` for each window, and an ``Interruption`` when a stream is interrupted, once each time; the
            windows after it see frames after it alone.

        Raises:
            LabelError, NotFiniteError: as ``classify``.
            ConfigError: an argument is out of range.
            VideoError: the source cannot be opened, or not again within ``retry_seconds``, or a file cannot be decoded.
            BackendError: a process cannot be started here.
        """
        listed = self._listed(labels)
        plan = plan_windows(self.frames, fps, window, hop)
        rejecter = read_rejection(background, self.clip.embed_dim, "background")
        least = least_level(self, rejecter, "background")
        if not retry_seconds >= 0:
            raise ConfigError(f"retry_seconds must be at least 0, got {retry_seconds}")
        if frame_rate is not None and not 0 < frame_rate < math.inf:
            raise ConfigError(f"frame_rate must be above 0, got {frame_rate}")
        warn_user(self.caution)
        classes = self.class_features(listed) if class_features is None else class_features
        watch = _Watch(self._scorer(plan, classes, rejecter), self._results(listed, plan, rejecter, least))
        if not isinstance(source, int | str | os.PathLike):
            return self._stream_frames(watch, source, layout, frame_rate)
        address = live_address(source)
        if address is None:
            assert not isinstance(source, int)
            return self._stream_file(watch, source)
        request = LiveRequest(address, plan.rate, plan.hop, self.clip.config.preprocessing, self.pixel_aspect)
        return _stream_live(watch, request, retry_seconds)

    def _results(
        self, labels: Sequence[str], plan: WindowPlan, rejecter: Rejecter, least: float
    ) -> Callable[[WindowScores, float, int], Iterator[LiveWindow]]:
        scale = float(self.clip.logit_scale.detach())
        # From the start of a window's first frame to the middle between its frames.
        before = float(((plan.frames - 1) * plan.stride + 1) / (2 * plan.rate))

        def results(scores: WindowScores, delay: float, dropped: int) -> Iterator[LiveWindow]:
            check_finite(scores.cosines, "scores")
            levels = levels_of(rejecter, scores.cosines, scores.reference, scores.background)
            rows = probabilities(scores.cosines, scale)
            for middle, row, level in zip(scores.times, rows, levels.tolist(), strict=True):
                index = int(row.argmax())
                label = labels[index] if level >= least else None
                start = max(0.0, middle - before)
                yield LiveWindow(
                    start, start + plan.seconds, label, index, float(row[index]), level, labels, row, delay, dropped
                )

        return results

    def _stream_file(self, watch: _Watch, path: str | os.PathLike[str]) -> Generator[LiveWindow]:
        source = source_of(path)
        assert isinstance(source, str)
        with self._open(source, watch.plan, None) as (_, chunks):
            tick = 0
            for chunk in chunks:
                yield from watch.chunk(chunk, tick)
                tick += len(chunk.positions)
            yield from watch.finish()

    def _stream_frames(
        self, watch: _Watch, frames: Iterable[Any], layout: Layout | None, frame_rate: float | None
    ) -> Generator[LiveWindow]:
        began: float | None = None
        last = -1
        for number, item in enumerate(frames):
            arrived = time.monotonic()
            stamp, frame = item if isinstance(item, tuple) and len(item) == 2 else (None, item)
            if stamp is None:
                stamp = arrived if frame_rate is None else number / frame_rate
            if began is None:
                began = float(stamp)
            tick = nearest_tick(float(stamp) - began, watch.plan.rate)
            if tick <= last:
                continue
            last = tick
            source = source_of([frame], layout)
            assert isinstance(source, Frames)
            crops = evaluation_crops(source.take(torch.tensor([0])), self.clip.config.preprocessing)[:, 0]
            yield from watch.push(crops, [tick], arrived, 0)
        if began is not None:
            yield from watch.finish()


def _stream_live(watch: _Watch, request: LiveRequest, retry_seconds: float) -> Generator[LiveWindow | Interruption]:
    for found in read_live(request, retry_seconds):
        if isinstance(found, Interruption):
            watch.restart()
            yield found
        else:
            yield from watch.push(found.crops, found.ticks, found.arrived, found.dropped)
    yield from watch.finish()


class _Watch:
    """Scores the windows of frames at ticks, of which some may be missing; the frame before stands in for them."""

    def __init__(
        self, scorer: WindowScorer, results: Callable[[WindowScores, float, int], Iterator[LiveWindow]]
    ) -> None:
        self.plan = scorer.plan
        self._scorer, self._results = scorer, results
        self._next: int | None = None
        self._before: Tensor | None = None
        self._dropped = 0

    def push(self, crops: Tensor, ticks: Sequence[int], arrived: float, dropped: int) -> Iterator[LiveWindow]:
        """Take frames, uint8 [N, 3, S, S], at ascending ticks; yield the windows that they end."""
        self._dropped = dropped
        at = 0
        while at < len(ticks):
            if self._next is None or ticks[at] - self._next >= self.plan.span:
                # No window sees both sides of so long a gap.
                self.restart()
                self._next = ticks[at]
            end = at + 1
            while end < len(ticks) and ticks[end] - ticks[end - 1] <= self.plan.span:
                end += 1
            scores = self._push_run(crops[at:end], ticks[at:end], self._next)
            at = end
            if scores is not None:
                yield from self._results(scores, time.monotonic() - arrived, dropped)

    def _push_run(self, crops: Tensor, ticks: Sequence[int], first: int) -> WindowScores | None:
        """Take frames without long gaps, for the ticks from ``first`` on."""
        if ticks[0] > first:
            assert self._before is not None
            crops = torch.cat([self._before, crops])
        row, places = len(crops) - len(ticks), []
        for tick in ticks:
            places += [row - 1] * (tick - first - len(places)) + [row]
            row += 1
        self._before, self._next = crops[-1:], ticks[-1] + 1
        return self._scorer.push_crops(crops, places, self._times(first, len(places)))

    def chunk(self, chunk: ClockChunk, tick: int) -> Iterator[LiveWindow]:
        """Take the frames of a file at the ticks from ``tick``."""
        times = self._times(tick, len(chunk.positions))
        scores = self._scorer.push_crops(chunk.crops, chunk.positions, times)
        if scores is not None:
            yield from self._results(scores, 0.0, 0)

    def finish(self) -> Iterator[LiveWindow]:
        """Yield the window at the end."""
        scores = self._scorer.finish()
        if scores is not None:
            yield from self._results(scores, 0.0, self._dropped)

    def restart(self) -> None:
        """Begin anew with the next frame."""
        self._scorer.restart()
        self._next = self._before = None

    def _times(self, tick: int, count: int) -> list[float]:
        """The middles of ticks, in seconds."""
        return [float((2 * at + 1) / (2 * self.plan.rate)) for at in range(tick, tick + count)]
