"""Reads the frames of a video on a fixed clock, some at a time, in this process or in a watched one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mote_fast.data.decoding.backend_pyav import StreamedFrame, stream
from mote_fast.data.decoding.decode import probe
from mote_fast.data.decoding.presentation import frames_at_ticks
from mote_fast.data.decoding.video_info import MAX_MEMORY, PixelAspect, check_read_size
from mote_fast.data.loading.view_frames import folder_of
from mote_fast.data.transforms import Preprocessing, evaluation_crops
from mote_fast.errors import DecoderCrashError, DecodingTimeoutError, MoteError, UndecodableVideoError
from mote_fast.runtime.workers import WithTensor, WorkerLostError, WorkerPool

# Ticks that are read at a time: those of 4 to 8 passes of the image tower on a CPU, 10 MiB of 224 x 224 crops.
CHUNK_TICKS = 64

# Frames of the video that a chunk spans at most, wanted or not, so that a time limit fits any clock.
_CHUNK_FRAMES = 512


@dataclass(frozen=True)
class ClockRequest:
    """What to read of a video.

    Attributes:
        rate: ticks of the clock each second, see ``frames_at_ticks``.
        preprocessing: of the model, which scales the frames.
        pixel_aspect: see ``VideoInfo.displayed_size``.
    """

    rate: Fraction
    preprocessing: Preprocessing
    pixel_aspect: PixelAspect = "ignore"


class ClockFacts(NamedTuple):
    """What is known of a video before it is decoded.

    Attributes:
        path: the video's name in messages.
        ticks: of the clock until its end.
        duration: seconds from the start of its first frame to the end of its last.
    """

    path: str
    ticks: int
    duration: float


class ClockChunk(NamedTuple):
    """The frames of some ticks that follow one another.

    Attributes:
        crops: uint8 [U, 3, S, S], the centre crops of the frames, each once.
        positions: of each tick, the place of its frame among them.
        stand_ins: see ``ReadableFrames``.
    """

    crops: Tensor
    positions: list[int]
    stand_ins: dict[int, int]


@contextlib.contextmanager
def open_on_clock(
    source: str | bytes, request: ClockRequest, time_limit: float | None = None
) -> Iterator[tuple[ClockFacts, Iterator[ClockChunk]]]:
    """Open a video, which is read once from its start to its end; the memory does not depend on its length.

    Args:
        source: the path of a video, or the bytes of one.
        request: what to read.
        time_limit: None decodes in this process. A number of seconds decodes in another process, while the caller uses
            what was read before. It is stopped if it takes longer for one chunk; a crash of the decoder and more than
            ``MAX_MEMORY`` bytes end it too.

    Yields:
        What is known of the video, and its chunks, from the first tick to the last.

    Raises:
        VideoError: the video cannot be read, or its decoder crashed or was stopped; also while chunks are taken.
        BackendError: a process cannot be started here.
    """
    with contextlib.closing(
        _Here(source, request) if time_limit is None else _Watched(source, request, time_limit)
    ) as (reader):
        yield reader.facts, reader.chunks()


class _Here:
    """Reads in this process."""

    def __init__(self, source: str | bytes, request: ClockRequest) -> None:
        self._reading = _Reading(source, request)
        self.facts = self._reading.facts

    def chunks(self) -> Iterator[ClockChunk]:
        while (found := self._reading.next()) is not None:
            yield found

    def close(self) -> None:
        self._reading.close()


class _Watched:
    """Reads in a process of its own, one chunk ahead."""

    def __init__(self, source: str | bytes, request: ClockRequest, time_limit: float) -> None:
        self._label = "<bytes>" if isinstance(source, bytes) else source
        self._limit = time_limit
        self._pool = WorkerPool(_ClockServer(), 1, time_limit, memory_limit=MAX_MEMORY)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mote-fast-clock")
        try:
            self.facts: ClockFacts = self._run((source, request, folder_of(source)))
        except BaseException:
            self.close()
            raise

    def chunks(self) -> Iterator[ClockChunk]:
        waiting = self._thread.submit(self._run, None)
        while (answer := waiting.result()) is not None:
            waiting = self._thread.submit(self._run, None)
            found: ClockChunk = answer.value._replace(crops=answer.tensor)
            yield found

    def close(self) -> None:
        self._pool.close()
        self._thread.shutdown(cancel_futures=True)

    def _run(self, task: tuple[str | bytes, ClockRequest, str | None] | None) -> Any:
        try:
            return self._pool.run(task)
        except WorkerLostError as lost:
            kind = DecodingTimeoutError if lost.timed_out else DecoderCrashError
            advice = "re-encode it, or raise the time limit" if lost.timed_out else "replace the file"
            raise kind(self._label, f"decoding it {lost}; {advice}") from None
        except MoteError:
            raise
        except RuntimeError as error:
            # An error that no one foresaw; one odd file must not end a long run.
            last = str(error).strip().rpartition("\n")[2]
            raise UndecodableVideoError(self._label, f"decoding it failed: {last[:240]}") from None


class _ClockServer:
    """Runs in the process: the first task opens a video, and each further one, None, reads its next chunk."""

    def __init__(self) -> None:
        self._reading: _Reading | None = None

    def __call__(self, task: tuple[str | bytes, ClockRequest, str | None] | None) -> ClockFacts | WithTensor | None:
        label = "the video"
        try:
            if task is not None:
                source, request, folder = task
                label = "<bytes>" if isinstance(source, bytes) else source
                if folder is not None:
                    os.chdir(folder)
                self._reading = _Reading(source, request)
                return self._reading.facts
            assert self._reading is not None
            label = self._reading.facts.path
            found = self._reading.next()
        except MemoryError as error:
            raise UndecodableVideoError(
                label, f"decoding it takes more than {MAX_MEMORY >> 20} MiB of memory"
            ) from error
        return None if found is None else WithTensor(found._replace(crops=None), found.crops)


class _Reading:
    """A video that is being read."""

    def __init__(self, source: str | bytes, request: ClockRequest) -> None:
        info = probe(source)
        self._ticks = frames_at_ticks(info, request.rate)
        self.facts = ClockFacts(info.path, len(self._ticks), info.duration)
        self._displayed = info.displayed_size(request.pixel_aspect)
        check_read_size(info.path, 1, *request.preprocessing.scaled(*self._displayed), " after scaling")
        self._preprocessing = request.preprocessing
        self._frames: Generator[StreamedFrame] = stream(source, info, sorted(set(self._ticks)))
        self._at = 0
        self._latest: tuple[int, Tensor] | None = None
        self._shape: tuple[int, ...] | None = None

    def next(self) -> ClockChunk | None:
        """Return the next chunk; None at the end."""
        if self._at == len(self._ticks):
            return None
        crops: list[Tensor] = []
        positions: list[int] = []
        stand_ins: dict[int, int] = {}
        ticks = self._ticks[self._at : self._at + CHUNK_TICKS]
        # A slow clock has frames far apart; a chunk then has fewer.
        ticks = [index for index in ticks if index - ticks[0] <= _CHUNK_FRAMES]
        for index in ticks:
            if self._latest is None or self._latest[0] != index:
                frame = next(self._frames)
                self._latest = index, self._crop(frame)
                crops.append(self._latest[1])
                if frame.number != index:
                    stand_ins[index] = frame.number
            elif not crops:
                crops.append(self._latest[1])
            positions.append(len(crops) - 1)
        self._at += len(ticks)
        if self._at == len(self._ticks):
            # The end of the frames says whether too many were unreadable.
            next(self._frames, None)
        return ClockChunk(torch.cat(crops), positions, stand_ins)

    def close(self) -> None:
        self._frames.close()

    def _crop(self, frame: StreamedFrame) -> Tensor:
        """Return uint8 [1, 3, S, S]."""
        shape = frame.image.shape
        if self._shape is not None and shape != self._shape:
            raise UndecodableVideoError(
                self.facts.path,
                f"frame {frame.number} is {shape[1]}x{shape[0]} pixels and the ones before it "
                f"{self._shape[1]}x{self._shape[0]}; re-encode the video to one size",
            )
        self._shape = shape
        # A copy: the memory of the image is the decoder's.
        image = torch.from_numpy(frame.image.copy())[None]
        return evaluation_crops(image, self._preprocessing, 1, self._displayed)[:, 0]
