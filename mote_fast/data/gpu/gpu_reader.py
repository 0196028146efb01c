"""Reads the frames of views with a decoder of a GPU, several videos at a time; the CPU reads what it does not take."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mote_fast.data.decoding.decode import probe
from mote_fast.data.gpu.decode_engine import DecodeEngine, kind_of_device
from mote_fast.data.gpu.decode_server import (
    TRIAL_CLIPS,
    Abilities,
    DecodeServer,
    GpuDecoder,
    ReadyClip,
    other_shape,
)
from mote_fast.data.gpu.ready_clips import ready_clip
from mote_fast.data.gpu.routing import Chooser, DecodeTiming
from mote_fast.data.gpu.trial import Trial
from mote_fast.data.loading.addresses import Address, fetch
from mote_fast.data.loading.view_frames import (
    CropReader,
    Source,
    ViewFrames,
    ViewRequest,
    read_crops,
    received,
)
from mote_fast.data.plan import ClipRecipe, plan_clip
from mote_fast.data.views import plan_views
from mote_fast.errors import BackendError, VideoError
from mote_fast.runtime.workers import WithTensor, WorkerLostError

logger = logging.getLogger(__name__)

# Why the CPU reads a video: the decoder is not for such videos; it cannot be looked at; the decoder failed on it; the
# CPU is faster.
ReasonKind = Literal["unsuited", "unreadable", "refused", "slower"]


class CpuReason(NamedTuple):
    """Why the CPU reads a video."""

    kind: ReasonKind
    text: str


@dataclass(frozen=True)
class _Planned:
    """A video for the decoder, and what ``ViewFrames`` says of it."""

    clip: ReadyClip
    num_frames: int
    displayed: tuple[int, int]
    path: str


@dataclass(eq=False)
class _Waiting:
    """A clip that waits for its turn; the result is uint8 [V * T, 3, S, S], or why the decoder refuses it."""

    clip: ReadyClip
    request: ViewRequest
    result: Future[Tensor | str] = field(default_factory=Future)


class GpuReader(CropReader):
    """Reads as ``CropReader`` does, with a decoder of a GPU; its results are those of the same frames.

    Processes look at the videos. Those that the decoder takes (``routing``) and on which it is the faster (the first
    of each kind is timed) it decodes, as many at a time as wait; the processes read the others, and those on which it
    fails. Each reason is logged when it first occurs, and all are counted.

    Attributes:
        on_cpu: number of videos that the CPU read, by the reason.
        decoded: number of videos that the decoder decoded.

    Args:
        decoder: what decodes; it must be available.
        device: where it decodes; a CUDA device has its index.
        workers: number of processes, each started when it is needed.
        time_limit: seconds for one video.
        isolated: whether another process decodes. If not, a file may end this one.
    """

    def __init__(
        self, decoder: GpuDecoder, device: torch.device, workers: int, time_limit: float, *, isolated: bool = True
    ) -> None:
        kind = kind_of_device(device)
        super().__init__(workers, time_limit, _PlanOrRead(decoder.takes[kind]))
        # The processes look at the next videos while the decoder has a batch.
        self.concurrency = workers + TRIAL_CLIPS
        self.on_cpu: Counter[CpuReason] = Counter()
        self.decoded = 0
        self._decoder, self._device, self._threads = decoder, device, min(workers, TRIAL_CLIPS)
        self._timed, self._isolated = kind == "gpu", isolated
        self._chooser = Chooser()
        self._waiting: deque[_Waiting] = deque()
        self._engine: tuple[ViewRequest, DecodeEngine] | None = None
        # Held by the thread that decodes, for the others too; and while what threads share changes.
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._closed = False

    def read(self, source: Source, request: ViewRequest, folder: str | None) -> ViewFrames:
        """See ``CropReader.read``."""
        answer = self._ask((source, request, folder, None), source)
        if isinstance(answer, WithTensor) and not isinstance(answer.value, _Planned):
            return self._from_cpu(answer, request)
        planned, clip = _complete(answer, source)
        reason = self._why_not(planned, clip, (source, request, folder))
        if reason is None:
            pixels = self._decode(clip, request)
            if isinstance(pixels, Tensor):
                with self._lock:
                    self.decoded += 1
                return _view_frames(planned, pixels, request)
            reason = self._refused(planned, pixels)
        return self._from_cpu(self._ask((source, request, folder, reason), source), request)

    def close(self) -> None:
        """See ``CropReader.close``."""
        self._closed = True
        super().close()
        with self._lock:
            engine, self._engine = self._engine, None
            counts = self.on_cpu.most_common()
        if engine is not None:
            engine[1].close()
        if counts:
            text = ", ".join(f"{count} ({reason.text})" for reason, count in counts)
            logger.info("%d videos decoded on the GPU; on the CPU: %s", self.decoded, text)

    def _from_cpu(self, answer: WithTensor, request: ViewRequest) -> ViewFrames:
        """Take what a process has read, and count the reason."""
        found, reason = answer.value
        with self._lock:
            self.on_cpu[reason] += 1
            first = self.on_cpu[reason] == 1
        if first:
            level = logging.WARNING if reason.kind == "unsuited" else logging.INFO
            logger.log(level, "%s: decoded on the CPU: %s; further ones are counted", found.path, reason.text)
        return received(found, answer.tensor, request)

    def _refused(self, planned: _Planned, why: str) -> CpuReason:
        """The reason for a video on which the decoder failed; the first one of its kind is logged with what it said."""
        kind = planned.clip.kind
        reason = CpuReason("refused", f"{kind.codec} in {kind.container}: the decoder fails")
        level = logging.DEBUG if self.on_cpu[reason] else logging.WARNING
        logger.log(level, "%s: decoded on the CPU, because the decoder fails: %s", planned.path, why)
        return reason

    def _why_not(
        self, planned: _Planned, clip: ReadyClip, video: tuple[Source, ViewRequest, str | None]
    ) -> CpuReason | None:
        """Why the CPU should read a video that the decoder may get; None if it should not."""
        source, request, folder = video
        refused: list[str] = []

        def readable() -> bool:
            try:
                self._ask((source, request, folder, CpuReason("slower", "to compare")), source)
            except VideoError:
                return False
            return True

        def ask(asked: tuple[Any, ...]) -> float | str:
            try:
                with self._turn:
                    answer = self._engine_for(request).ask(asked)
            except WorkerLostError as lost:
                answer = f"in the decoder, {lost}"
            if isinstance(answer, str):
                refused.append(answer)
            return answer

        def measure() -> DecodeTiming | None:
            return Trial(ask, self._threads, timed=self._timed).measure(clip, readable)

        if self._chooser.prefers_gpu(clip.kind, measure):
            return None
        if refused:
            return self._refused(planned, refused[0])
        return CpuReason("slower", f"{clip.kind.codec} in {clip.kind.container}: faster on the CPU, or refused")

    def _decode(self, clip: ReadyClip, request: ViewRequest) -> Tensor | str:
        """Decode a clip together with those that wait: uint8 [V * T, 3, S, S], or why the decoder refuses it."""
        mine = _Waiting(clip, request)
        with self._lock:
            self._waiting.append(mine)
        while not mine.result.done():
            with self._turn:
                if not mine.result.done():
                    self._decode_waiting()
        return mine.result.result()

    def _decode_waiting(self) -> None:
        """Decode the clips that wait for the same request as the oldest one."""
        with self._lock:
            request = self._waiting[0].request
            batch = [each for each in self._waiting if each.request == request][:TRIAL_CLIPS]
            for each in batch:
                self._waiting.remove(each)
        try:
            answers = self._attempt(batch)
            if isinstance(answers, str) and len(batch) > 1:
                # One video spoils a batch.
                answers = [self._attempt([each]) for each in batch]
                answers = [each if isinstance(each, str) else each[0] for each in answers]
            elif isinstance(answers, str):
                answers = [answers]
            for each, answer in zip(batch, answers, strict=True):
                each.result.set_result(answer)
        except BaseException as error:
            for each in batch:
                if not each.result.done():
                    each.result.set_exception(error)

    def _attempt(self, batch: list[_Waiting]) -> list[Tensor | str] | str:
        """Decode clips at once; return the pixels or the refusal of each, or why all of them fail."""
        engine = self._engine_for(batch[0].request)
        try:
            engine.ask((DecodeServer.clear,))
            problem = engine.ask((DecodeServer.feed, [each.clip for each in batch]))
            answer = engine.ask((DecodeServer.take,)) if problem is None else problem
        except WorkerLostError as lost:
            return f"in the decoder, {lost}"
        if isinstance(answer, str):
            return answer
        return [
            pixels if shape == each.clip.shape else other_shape(shape, each.clip)
            for each, pixels, shape in zip(batch, answer.tensor, answer.value, strict=True)
        ]

    def _engine_for(self, request: ViewRequest) -> DecodeEngine:
        """The engine for a request, for whoever has the turn; that of another ends, as each takes memory of the GPU."""
        with self._lock:
            if self._closed:
                raise BackendError("the reader was closed while a video waited")
            if self._engine is not None:
                if self._engine[0] == request:
                    return self._engine[1]
                self._engine[1].close()
            engine = DecodeEngine(
                self._decoder,
                recipe_of(request),
                self._device,
                batch_size=TRIAL_CLIPS,
                threads=self._threads,
                time_limit=self._time_limit,
                isolated=self._isolated,
            )
            self._engine = request, engine
            return engine


def recipe_of(request: ViewRequest) -> ClipRecipe:
    """The recipe of the views of a request."""
    return ClipRecipe(
        request.frames,
        request.preprocessing,
        request.views,
        pixel_aspect=request.pixel_aspect,
        crops_along=request.crops_along,
    )


class _PlanOrRead:
    """Runs in the processes: plans a video for the decoder, or reads it if there is a reason to."""

    def __init__(self, takes: Abilities) -> None:
        self._takes = takes

    def __call__(self, task: tuple[Source, ViewRequest, str | None, CpuReason | None]) -> _Planned | WithTensor:
        source, request, folder, reason = task
        if reason is None:
            if folder is not None:
                os.chdir(folder)
            planned = self._plan(source, request)
            if not isinstance(planned, CpuReason):
                return planned
            reason = planned
        answer = read_crops((source, request, folder))
        return answer._replace(value=(answer.value, reason))

    def _plan(self, source: Source, request: ViewRequest) -> _Planned | WithTensor | CpuReason:
        """Plan a video, fetched if it is elsewhere, or say why the CPU should read it."""
        try:
            content = fetch(source) if isinstance(source, Address) else source
            info = probe(content)
            displayed = info.displayed_size(request.pixel_aspect)
            if request.longest is not None and info.duration > request.longest:
                return CpuReason("unreadable", "too long")
            plan = plan_clip(info.num_frames, *displayed, 0, recipe_of(request), seed=0, epoch=0, index=0)
            crops = torch.arange(request.views.crops) * len(plan.views.frame_indices)
            order = plan.views.positions.flatten()[:, None] + crops
            where = content if isinstance(content, bytes) else os.path.abspath(content)
            clip = ready_clip(where, info, plan, self._takes, order=order)
        # Reading on the CPU meets the same error, and reports it.
        except Exception:
            return CpuReason("unreadable", "unreadable")
        if isinstance(clip, str):
            return CpuReason("unsuited", clip)
        # The caller has the content, unless it was fetched here.
        light = clip if isinstance(where, str) else replace(clip, source=b"")
        planned = _Planned(light, info.num_frames, displayed, info.path)
        if isinstance(source, Address):
            assert isinstance(content, bytes)
            planned = replace(planned, path=source.url)
            return WithTensor(planned, torch.frombuffer(bytearray(content), dtype=torch.uint8))
        return planned


def _complete(answer: _Planned | WithTensor, source: Source) -> tuple[_Planned, ReadyClip]:
    """Put the content of a video that is no file into its clip."""
    if isinstance(answer, WithTensor):
        planned: _Planned = answer.value
        return planned, replace(planned.clip, source=answer.tensor.numpy().tobytes())
    return answer, replace(answer.clip, source=source) if isinstance(source, bytes) else answer.clip


def _view_frames(planned: _Planned, pixels: Tensor, request: ViewRequest) -> ViewFrames:
    """Take the distinct frames, uint8 [U, crops, 3, S, S], out of those of the views, [clips * T * crops, 3, S, S]."""
    plan = plan_views(planned.num_frames, request.frames, request.views)
    _, first = np.unique(plan.positions.flatten().numpy(), return_index=True)
    frames = pixels.unflatten(0, (-1, request.views.crops))[torch.from_numpy(first)]
    return ViewFrames(frames, plan, planned.num_frames, planned.displayed, planned.path, {})
