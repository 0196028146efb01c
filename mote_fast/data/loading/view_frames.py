"""Reads the frames that the views of one video need, in this process or in a watched one."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mote_fast.data.decoding.decode import probe, read_readable_frames
from mote_fast.data.decoding.video_info import MAX_MEMORY, PixelAspect, check_read_size
from mote_fast.data.loading.addresses import Address, fetch
from mote_fast.data.transforms import CropsAlong, Preprocessing, evaluation_crops
from mote_fast.data.views import ViewPlan, Views, plan_views
from mote_fast.errors import (
    BackendError,
    DecoderCrashError,
    DecodingTimeoutError,
    MoteError,
    UndecodableVideoError,
    VideoError,
)
from mote_fast.runtime.workers import START_LIMIT, WithTensor, WorkerLostError, WorkerPool


@dataclass(frozen=True)
class ViewRequest:
    """What to read of a video.

    Attributes:
        frames: T, frames per view.
        views: the clips and crops.
        preprocessing: of the model, which scales the frames.
        frames_at_once: frames that are scaled at a time.
        backend: see ``read_frames``.
        pixel_aspect: see ``VideoInfo.displayed_size``.
        crops_along: see ``crop_offsets``.
        longest: seconds that the video may last; None reads one of any length.
    """

    frames: int
    views: Views
    preprocessing: Preprocessing
    frames_at_once: int
    backend: str = "auto"
    pixel_aspect: PixelAspect = "ignore"
    crops_along: CropsAlong = "width"
    longest: float | None = None


# A path, the bytes of a file, or what the process that decodes fetches.
Source = str | bytes | Address

# Processes that one video may lose without losing two in the same way.
MAX_LOSSES = 3

# A source, what to read of it, and the folder of ``folder_of``.
_Task = tuple[Source, ViewRequest, str | None]


class ViewFrames(NamedTuple):
    """Frames of a video, and the views that they make.

    Attributes:
        frames: uint8 [U, H, W, 3], the distinct frames.
        plan: the views' frames.
        num_frames: of the whole video.
        displayed: (height, width) in square pixels.
        path: the video's name in messages.
        stand_ins: see ``ReadableFrames``.
    """

    frames: Tensor
    plan: ViewPlan
    num_frames: int
    displayed: tuple[int, int]
    path: str
    stand_ins: dict[int, int]


def read_view_frames(source: str | bytes, request: ViewRequest, time_limit: float | None = None) -> ViewFrames:
    """Read the frames of a video, given as a path or as the bytes of a file.

    Args:
        source: the video.
        request: what to read.
        time_limit: None decodes in this process. A number of seconds decodes in another process, which is stopped after
            this time; a crash of the decoder and more than ``MAX_MEMORY`` bytes end it too, and cost this video only.

    Raises:
        VideoError: the video cannot be read, or its decoder crashed or was stopped.
    """
    if time_limit is None:
        return _read(source, request)
    answer = run_watched(_pool(os.getpid()), (source, request, folder_of(source)), source, time_limit)
    return received(answer.value, answer.tensor, request)


class CropReader:
    """Processes that read the frames of views, scale and crop them; a fault costs its video only.

    Attributes:
        concurrency: calls of ``read`` that run at the same time.

    Args:
        workers: number of processes, each started when it is needed.
        time_limit: seconds for one video.
        serve: what the processes do with a task.
    """

    def __init__(self, workers: int, time_limit: float, serve: Callable[[Any], Any] | None = None) -> None:
        self.concurrency = workers
        self._pool = WorkerPool(serve or read_crops, workers, time_limit, memory_limit=MAX_MEMORY)
        self._time_limit = time_limit

    def read(self, source: Source, request: ViewRequest, folder: str | None) -> ViewFrames:
        """Read a video; callable from as many threads as ``concurrency`` says.

        Args:
            source: the video.
            request: what to read.
            folder: see ``folder_of``.

        Returns:
            What ``read_view_frames`` does, but ``frames`` are uint8 [U, crops, 3, S, S].

        Raises:
            VideoError: the video cannot be read, or its decoder crashed or was stopped.
            BackendError: processes cannot be started here, or the reader was closed.
        """
        answer = self._ask((source, request, folder), source)
        return received(answer.value, answer.tensor, request)

    def _ask(self, task: Any, source: Source) -> Any:
        """Return what a process answers to a task about a video."""
        try:
            return run_watched(self._pool, task, source, self._time_limit)
        except MoteError:
            raise
        except RuntimeError as error:
            # An error that no one foresaw; one odd file must not end a long run.
            last = str(error).strip().rpartition("\n")[2]
            raise UndecodableVideoError(label_of(source), f"decoding it failed: {last[:240]}") from None

    def close(self) -> None:
        """Stop the processes; a ``read`` waiting in another thread raises."""
        self._pool.close()


def folder_of(source: Source) -> str | None:
    """The folder that a relative path starts from, for another process; None for others."""
    return None if not isinstance(source, str) or os.path.isabs(source) else os.getcwd()


def start_watched_reader() -> None:
    """Start the process that ``read_view_frames`` with a time limit uses, without waiting for it."""
    threading.Thread(target=_start, args=(_pool(os.getpid()),), daemon=True).start()


def _start(pool: WorkerPool) -> None:
    # Who needs the process is told why there is none; whoever ends before does not need it.
    with contextlib.suppress(BackendError, WorkerLostError):
        pool.run(None)


def _read(source: Source, request: ViewRequest) -> ViewFrames:
    if isinstance(source, Address):
        try:
            return _read(fetch(source), request)
        except VideoError as error:
            raise type(error)(source.url, error.reason) from error
    info = probe(source)
    if request.longest is not None and info.duration > request.longest:
        raise UndecodableVideoError(
            info.path, f"it lasts {info.duration:.1f} s, over the limit of {request.longest:g} s; cut it"
        )
    plan = plan_views(info.num_frames, request.frames, request.views)
    displayed = info.displayed_size(request.pixel_aspect)
    # Scaling up the short side of a strip of a few rows makes huge frames, so only some are scaled at a time.
    height, width = request.preprocessing.scaled(*displayed)
    at_once = min(len(plan.frame_indices), request.frames_at_once)
    check_read_size(info.path, at_once, width, height, " after scaling")
    frames, stand_ins = read_readable_frames(source, plan.frame_indices, request.backend, info=info)
    return ViewFrames(frames, plan, info.num_frames, displayed, info.path, stand_ins)


def run_watched(pool: WorkerPool, task: Any, source: Source, time_limit: float) -> Any:
    """Return what a process answers to a task about a video, which may lose processes.

    Raises:
        VideoError: the process said so; or the decoder crashed or was stopped.
    """
    # The texts alone: a kept error would hold this frame, and with it the bytes of the video.
    losses: list[str] = []
    while True:
        try:
            return pool.run(task, time_limit=time_limit)
        except WorkerLostError as lost:
            # A video that takes too long is not tried again.
            if lost.timed_out:
                raise DecodingTimeoutError(
                    label_of(source), f"decoding it {lost}; re-encode it, or raise the time limit"
                ) from None
            losses.append(str(lost))
        # The cause may be external, such as a lack of memory, and is not the video's until it comes twice.
        last = losses[-1]
        if losses.count(last) == 2:
            raise DecoderCrashError(label_of(source), f"decoding it twice: {last}, then {last}; replace the file")
        if len(losses) == MAX_LOSSES:
            raise DecoderCrashError(label_of(source), f"decoding it: {', then '.join(losses)}; replace the file")


def received(found: ViewFrames, frames: Tensor, request: ViewRequest) -> ViewFrames:
    """Put together what came without its tensors; the plan is made again."""
    return found._replace(frames=frames, plan=plan_views(found.num_frames, request.frames, request.views))


@functools.cache
def _pool(process: int) -> WorkerPool:
    """The processes of this process; a fork must not use its parent's."""
    del process
    return WorkerPool(_serve, os.cpu_count() or 1, START_LIMIT, memory_limit=MAX_MEMORY)


def _serve(task: _Task | None) -> WithTensor | None:
    """Read in the process, in the caller's folder; None only starts it."""
    return None if task is None else _send(task, _read)


def read_crops(task: _Task) -> WithTensor:
    """Read in the process, in the caller's folder, and scale and crop."""
    return _send(task, _read_crops)


def _read_crops(source: Source, request: ViewRequest) -> ViewFrames:
    found = _read(source, request)
    return found._replace(frames=crop_frames(found, request))


def crop_frames(found: ViewFrames, request: ViewRequest, device: torch.device | None = None) -> Tensor:
    """Scale and crop the frames [U, H, W, 3] of a video, a few at a time: uint8 [U, crops, 3, S, S].

    Args:
        found: what was read of the video.
        request: what was asked for.
        device: where to do it; None takes that of the frames.
    """
    crops = request.views.crops
    return torch.cat(
        [
            evaluation_crops(
                part.to(device or part.device), request.preprocessing, crops, found.displayed, request.crops_along
            )
            for part in found.frames.split(max(1, request.frames_at_once // crops))
        ]
    )


def _send(task: _Task, read: Callable[[Source, ViewRequest], ViewFrames]) -> WithTensor:
    source, request, folder = task
    if folder is not None:
        os.chdir(folder)
    try:
        found = read(source, request)
    except MemoryError as error:
        raise UndecodableVideoError(
            label_of(source), f"decoding it takes more than {MAX_MEMORY >> 20} MiB of memory"
        ) from error
    # The caller plans again: the plan's small tensors would go through files of their own.
    return WithTensor(found._replace(frames=None, plan=None), found.frames)


def label_of(source: Source) -> str:
    """What a video is called in messages."""
    if isinstance(source, Address):
        return source.url
    return "<bytes>" if isinstance(source, bytes) else source
