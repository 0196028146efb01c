"""Models over long videos: the windows of a video whose frames are read once, and the timeline that they make."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.data.decoding.presentation import MAX_TICKS
from mote_fast.data.loading.addresses import Address
from mote_fast.data.loading.clock_frames import CHUNK_TICKS, ClockChunk, ClockFacts, ClockRequest, open_on_clock
from mote_fast.data.loading.view_frames import Source
from mote_fast.data.transforms import evaluation_crops, normalize
from mote_fast.errors import ConfigError, LabelError
from mote_fast.model.caution import warn_user
from mote_fast.model.distinct_frames import distinct_frames
from mote_fast.model.label_input import Labels, labels_of
from mote_fast.model.rejecting import WindowJudge
from mote_fast.model.results import WindowEmbeddings
from mote_fast.model.video_input import Frames, Layout, Video, source_of
from mote_fast.model.video_model import VideoModel
from mote_fast.runtime.checks import check_finite
from mote_fast.timeline.judgement import Rules, judge
from mote_fast.timeline.rejection import Background, Rejecter, Rejection, read_rejection
from mote_fast.timeline.scorer import WindowScorer, WindowScores, joined
from mote_fast.timeline.time_segments import probabilities
from mote_fast.timeline.timeline import Timeline
from mote_fast.timeline.windows import FeatureWindows, WindowPlan, plan_windows

# Seconds over which scores are averaged, and of the shortest segment, where nobody says.
SMOOTH = 1.0
MIN_SECONDS = 0.5


class TimelineModel(VideoModel):
    """A model with timelines of long videos."""

    def timeline(
        self,
        video: Video,
        labels: Labels | None = None,
        *,
        fps: float | None = None,
        window: float | None = None,
        hop: float | None = None,
        background: Background = None,
        smooth: float = SMOOTH,
        min_seconds: float = MIN_SECONDS,
        several: bool = False,
        class_features: Tensor | None = None,
        layout: Layout | None = None,
        frame_rate: float | None = None,
        progress: Callable[[float, float], object] | None = None,
    ) -> Timeline:
        """Say when which label fits a long video.

        Frames are taken on a clock of presentation time, encoded once each, and shared by all windows of T frames that
        see them. The memory does not grow with the length of the video, but for the scores of its windows.

        Args:
            video: as in ``classify``.
            labels: as in ``classify``.
            fps: frames that are taken each second; None takes T for each window. Twice as many give finer hops, and
                windows of the same T frames.
            window: seconds that a window spans; None takes 2, or T frames if ``fps`` is given. The model learned from
                whole clips: choose about the length of an action.
            hop: seconds from a window to the next; None takes a quarter of a window.
            background: what has none of the labels. None: every time has a label. "auto": a threshold for the level of
                the best label, see ``Timeline.levels``, chosen for this video and stated in ``Timeline.rejection``. A
                number: the least level. What competes with the labels, without entering the modulation: a list of
                words, such as ["an empty street"]; (start, end), seconds of this video that show the background; or
                embeddings of background, [d] or [K, d], from ``embed``.
            smooth: seconds over which scores are averaged before segments are found; 0 averages none.
            min_seconds: a gap in a label that is shorter is closed, and a segment that is shorter is left out.
            several: labels may overlap; otherwise there is one at a time.
            class_features: as in ``classify``, as ``layout``.
            frame_rate: of decoded frames, per second; a file states its own.
            progress: called with the seconds of the video that are done, and with its duration, as they grow.

        Returns:
            The segments, and the scores of all windows.

        Raises:
            LabelError, VideoError, NotFiniteError: as ``classify``.
            ConfigError: as ``classify``; or a number is out of range, or a window holds fewer than T frames.
        """
        listed = self._listed(labels)
        plan = plan_windows(self.frames, fps, window, hop)
        rejecter = read_rejection(background, self.clip.embed_dim, "background", timed=True)
        for name, value in (("smooth", smooth), ("min_seconds", min_seconds)):
            if not (isinstance(value, int | float) and 0 <= value < float("inf")):
                raise ConfigError(f"{name} must be a number of seconds, at least 0, got {value!r}")
        warn_user(self.caution)
        source = source_of(video, layout)
        with self._open(source, plan, frame_rate) as (facts, chunks):
            classes = self.class_features(listed) if class_features is None else class_features
            scores, replaced = self._score(facts, chunks, self._scorer(plan, classes, rejecter), plan, progress)
        scale = float(self.clip.logit_scale.detach())
        rules = Rules(plan.seconds, plan.hop_seconds, smooth, min_seconds, several)
        judged = judge(scores, listed, facts.duration, rejecter, rules, known=self.reject_level, scale=scale)
        return Timeline(
            facts.path,
            facts.duration,
            listed,
            judged.segments,
            scores.times,
            probabilities(scores.cosines, scale),
            scores.cosines,
            judged.levels,
            judged.threshold.value,
            judged.threshold.how,
            plan.fps,
            plan.seconds,
            plan.hop_seconds,
            replaced,
        )

    @torch.no_grad()
    def embed_windows(
        self,
        video: Video,
        *,
        fps: float | None = None,
        window: float | None = None,
        hop: float | None = None,
        layout: Layout | None = None,
        frame_rate: float | None = None,
    ) -> WindowEmbeddings:
        """Embed the windows of a long video, each as ``embed`` does a video of its T frames.

        Args:
            video: as in ``timeline``, as ``fps``, ``window``, ``layout`` and ``frame_rate``.
            hop: seconds from a window to the next; None takes a window, so that they follow one another. The last one
                ends with the video, and may overlap the one before it.

        Raises:
            VideoError, ConfigError, NotFiniteError: as ``timeline``.
        """
        plan = plan_windows(self.frames, fps, window, hop)
        plan = replace(plan, hop=plan.span) if hop is None else plan
        warn_user(self.caution)
        encode, windows = _CropEncoder(self), FeatureWindows(plan)
        batches, tick, replaced = [], 0, 0
        with self._open(source_of(video, layout), plan, frame_rate) as (facts, chunks):
            for chunk in chunks:
                times = _times(plan, tick, len(chunk.positions))
                batches.append(windows.push(encode(chunk.crops)[torch.tensor(chunk.positions)], times))
                tick, replaced = tick + len(times), replaced + len(chunk.stand_ins)
        batches.append(windows.finish())
        found = [batch for batch in batches if batch is not None]
        pooled = torch.cat([self.head.features(batch.features).float().mean(1) for batch in found])
        check_finite(pooled, "video features")
        spans = [plan.around(time) for batch in found for time in batch.times]
        # A video that is shorter than a window is stretched to one.
        spans = spans if facts.ticks >= plan.span else [(0.0, facts.duration)]
        spans = [(max(0.0, start), min(facts.duration, end)) for start, end in spans]
        return WindowEmbeddings(spans, F.normalize(pooled, dim=-1).cpu(), replaced)

    def window_scorer(
        self,
        labels: Labels | None = None,
        *,
        fps: float | None = None,
        window: float | None = None,
        hop: float | None = None,
        background: Rejection = None,
        class_features: Tensor | None = None,
    ) -> WindowScorer:
        """Return what scores windows of frames that are pushed one after another; arguments as in ``timeline``.

        >>> scorer = clf.window_scorer(labels, fps=4)
        >>> found = scorer.push(frame[None], [time])  # WindowScores, or None if no window ends here

        Raises:
            LabelError, ConfigError: as ``timeline``.
        """
        listed = self._listed(labels)
        plan = plan_windows(self.frames, fps, window, hop)
        rejecter = read_rejection(background, self.clip.embed_dim, "background")
        classes = self.class_features(listed) if class_features is None else class_features
        return self._scorer(plan, classes, rejecter)

    def _scorer(self, plan: WindowPlan, classes: Tensor, rejecter: Rejecter) -> WindowScorer:
        preprocessing = self.clip.config.preprocessing

        def crop(frames: Tensor) -> Tensor:
            return evaluation_crops(frames.to(self.device), preprocessing)[:, 0]

        return WindowScorer(plan, crop, _CropEncoder(self), WindowJudge(self, classes, rejecter))

    def _score(
        self,
        facts: ClockFacts,
        chunks: Iterator[ClockChunk],
        scorer: WindowScorer,
        plan: WindowPlan,
        progress: Callable[[float, float], object] | None,
    ) -> tuple[WindowScores, int]:
        """Score all windows of a video; return also the number of replaced frames."""
        parts, tick, replaced = [], 0, 0
        for chunk in chunks:
            times = _times(plan, tick, len(chunk.positions))
            parts.append(scorer.push_crops(chunk.crops, chunk.positions, times))
            tick, replaced = tick + len(times), replaced + len(chunk.stand_ins)
            if progress is not None:
                progress(facts.duration * tick / facts.ticks, facts.duration)
        parts.append(scorer.finish())
        scores = joined([part for part in parts if part is not None])
        check_finite(scores.cosines, "scores")
        return scores, replaced

    def _listed(self, labels: Labels | None) -> list[str]:
        labels = self.classes if labels is None else labels
        if labels is None:
            raise LabelError("no labels: this model records no class names of its own; give a list of them")
        return labels_of(labels)

    @contextlib.contextmanager
    def _open(
        self, source: Source | Frames, plan: WindowPlan, frame_rate: float | None
    ) -> Iterator[tuple[ClockFacts, Iterator[ClockChunk]]]:
        request = ClockRequest(plan.rate, self.clip.config.preprocessing, self.pixel_aspect)
        if isinstance(source, Frames):
            yield _open_frames(source, request, frame_rate)
            return
        if isinstance(source, Address):
            raise ConfigError(f"{source}: timelines are of files; fetch the video, and give its path")
        if self.decode_backend == "torchcodec":
            raise ConfigError("timelines are decoded by PyAV alone, frame after frame; set decode_backend to 'auto'")
        with open_on_clock(source, request, self.decode_time_limit) as opened:
            yield opened


def _times(plan: WindowPlan, first: int, count: int) -> list[float]:
    """The middles of ticks of the clock, in seconds."""
    return [float((2 * at + 1) / (2 * plan.rate)) for at in range(first, first + count)]


class _CropEncoder:
    """Encodes crops of frames one after another, each once: also one that equals the last before it."""

    def __init__(self, model: VideoModel) -> None:
        self._model = model
        self._last: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> Tensor:
        """Map uint8 [N, 3, S, S] to features [N, d]."""
        model = self._model
        found = distinct_frames(crops)
        fresh = found.frames
        known = fresh[:0]
        if self._last is not None and torch.equal(self._last[0], fresh[0]):
            known, fresh = fresh[:1], fresh[1:]
        model.frame_counts.given += len(found.positions)
        model.frame_counts.encoded += len(fresh)
        parts = [] if self._last is None or not len(known) else [self._last[1]]
        for part in fresh.split(model._frames_at_once) if len(fresh) else ():
            pixels = normalize(part.to(model.device), model.clip.config.preprocessing, model.clip.dtype)
            parts.append(model.encode_frames(pixels))
        features = torch.cat(parts)
        last = int(found.positions[-1])
        self._last = found.frames[last], features[last : last + 1]
        return found.spread(features)


def _open_frames(
    source: Frames, request: ClockRequest, frame_rate: float | None
) -> tuple[ClockFacts, Iterator[ClockChunk]]:
    """Frames that lie in memory, on the clock."""
    if frame_rate is None or not 0 < frame_rate < float("inf"):
        raise ConfigError(f"decoded frames have no times: give frame_rate, frames per second, got {frame_rate}")
    step = Fraction(frame_rate).limit_denominator(10**6) / request.rate
    duration = source.count / frame_rate
    ticks = max(1, int(source.count / step + Fraction(1, 2)))
    if ticks > MAX_TICKS:
        raise ConfigError(f"the frames last {duration:g} s, over {MAX_TICKS} ticks of the clock")
    indices = [min(source.count - 1, int((tick + Fraction(1, 2)) * step)) for tick in range(ticks)]

    def chunks() -> Iterator[ClockChunk]:
        for at in range(0, ticks, CHUNK_TICKS):
            wanted, positions = torch.unique(torch.tensor(indices[at : at + CHUNK_TICKS]), return_inverse=True)
            crops = evaluation_crops(source.take(wanted), request.preprocessing)[:, 0]
            yield ClockChunk(crops, positions.tolist(), {})

    return ClockFacts("<frames>", ticks, duration), chunks()
