"""The process that reads a live source: it decodes all the time, and keeps the frames that were not fetched yet.

The frames of a source come when they come. What is kept is bounded: where the model is slower, the oldest frames are
dropped and counted, so that its answers are never late by more than what is kept.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import av
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from torch import Tensor

from mote_fast.data.decoding.bitstream import largest_empty_packet
from mote_fast.data.decoding.frame_converter import FrameConverter, rgb_pixels
from mote_fast.data.decoding.video_info import (
    MAX_PIXELS,
    MAX_STREAMS,
    packets_of,
    video_stream,
)
from mote_fast.data.live.live_address import LiveAddress, why_not_camera
from mote_fast.data.reading_choices import PixelAspect
from mote_fast.data.transforms import Preprocessing, evaluation_crops
from mote_fast.errors import MoteError, UndecodableVideoError, one_line
from mote_fast.runtime.workers import WithTensor

# Seconds that a fetch waits for a frame.
FETCH_SECONDS = 0.5

# Seconds by which the times of a stream may differ from those at which its frames come; more is a jump of its clock.
# FFmpeg collects up to five before the first.
_JUMP = 10.0


@dataclass(frozen=True)
class LiveRequest:
    """What to read of a live source.

    Attributes:
        address: of the source.
        rate: ticks of the clock each second; each takes the first frame that is nearest to it.
        kept: frames that wait to be fetched, at most.
        preprocessing: of the model, which scales the frames.
        pixel_aspect: see ``VideoInfo.displayed_size``.
    """

    address: LiveAddress
    rate: Fraction
    kept: int
    preprocessing: Preprocessing
    pixel_aspect: PixelAspect = "ignore"


class LiveFrames(NamedTuple):
    """What was read since the last fetch.

    Attributes:
        crops: uint8 [N, 3, S, S]; N is 0 if no frame came.
        ticks: of each frame, ascending: ticks of the clock since the first frame.
        arrived: when the last frame came, by ``time.monotonic``.
        dropped: frames that were dropped since the source was opened.
        ended: why no more frames come; None while they do.
        complete: the source has an end, and it was reached.
    """

    crops: Tensor
    ticks: list[int]
    arrived: float
    dropped: int
    ended: str | None
    complete: bool


class LiveServer:
    """Runs in the process: the first task opens a source, and each further one, None, fetches frames."""

    def __init__(self) -> None:
        self._reading: _LiveReading | None = None

    def __call__(self, task: LiveRequest | None) -> WithTensor | None:
        """Open the source of a request, or return what was read since the last fetch."""
        if task is not None:
            self._reading = _LiveReading(task)
            return None
        assert self._reading is not None
        found = self._reading.fetch()
        return WithTensor(found._replace(crops=None), found.crops)


class _LiveReading:
    def __init__(self, request: LiveRequest) -> None:
        self._request = request
        self._label = request.address.label
        size = request.preprocessing.size
        self._none = torch.empty(0, 3, size, size, dtype=torch.uint8)
        self._container, self._stream = _open(request.address)
        # A source that has an end, as a file at an address, states its length or its size; its frames come as they are
        # shown. A stream states neither.
        self._length = self._container.duration / av.time_base if self._container.duration else 0.0
        self._has_end = bool(self._length) or self._container.size > 0
        self._convert = FrameConverter(self._label, self._time_base, [("format", "rgb24")])
        self._clock = _Clock()
        self._tick = -1
        self._waiting: deque[tuple[int, Tensor, float]] = deque()
        self._dropped = 0
        self._ended: str | None = None
        self._complete = False
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def _time_base(self) -> Fraction:
        return self._stream.time_base or Fraction(1, 1000)

    def fetch(self) -> LiveFrames:
        """Return the frames that wait; without any, wait for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended is not None, FETCH_SECONDS)
            found = list(self._waiting)
            self._waiting.clear()
            # What waits comes before the news that nothing follows.
            ended = None if found else self._ended
            arrived = found[-1][2] if found else 0.0
            crops = torch.cat([crop for _, crop, _ in found]) if found else self._none
            return LiveFrames(
                crops, [tick for tick, _, _ in found], arrived, self._dropped, ended, self._complete and not found
            )

    def _read(self) -> None:
        is_complete = False
        try:
            for frame in self._frames():
                if not frame.is_corrupt:
                    self._take(frame)
            reason = "the stream ended"
            # A second, because the last frame's length is not known.
            is_complete = self._has_end and self._clock.shown >= self._length - 1
        except MoteError as error:
            reason = str(error)
        except (FFmpegError, OSError, ValueError, MemoryError) as error:
            reason = f"reading it failed ({one_line(error)})"
        with self._changed:
            self._ended, self._complete = reason, is_complete
            self._changed.notify_all()

    def _frames(self) -> Iterator[VideoFrame]:
        """What the decoder outputs; what it cannot decode is passed over, as players do."""
        context = self._stream.codec_context
        codec = context.codec
        # The decoder would take an empty packet as the end of the stream.
        empty = largest_empty_packet(codec.canonical_name, codec.intra_only)
        cut: FFmpegError | None = None
        try:
            for packet in packets_of(self._container, self._stream):
                if packet.size > empty:
                    with suppress(FFmpegError):
                        yield from context.decode(packet)
        except FFmpegError as error:
            cut = error
        with suppress(FFmpegError):
            yield from context.decode(None)
        if cut is not None:
            raise cut

    def _take(self, frame: VideoFrame) -> None:
        stamp = None if frame.pts is None else float(frame.pts * self._time_base)
        now = time.monotonic()
        shown = self._clock.place(stamp, now, is_paced=self._has_end)
        if self._has_end and (early := self._clock.start + shown - now) > 0:
            time.sleep(early)
            now = time.monotonic()
        tick = nearest_tick(shown, self._request.rate)
        if tick <= self._tick:
            return
        self._tick = tick
        crop = self._crop(frame)
        with self._changed:
            if len(self._waiting) == self._request.kept:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append((tick, crop, now))
            self._changed.notify_all()

    def _crop(self, frame: VideoFrame) -> Tensor:
        """Return uint8 [1, 3, S, S]."""
        # A copy: the memory of the image is the decoder's.
        image = torch.from_numpy(rgb_pixels(self._convert(frame)).copy())[None]
        aspect = self._stream.sample_aspect_ratio if self._request.pixel_aspect == "apply" else None
        displayed = image.shape[1], max(1, round(image.shape[2] * (aspect or 1)))
        return evaluation_crops(image, self._request.preprocessing, 1, displayed)[:, 0]


def nearest_tick(seconds: float, rate: Fraction) -> int:
    """The tick of a clock that is nearest to a time: frames that come as often as it ticks may come a little early."""
    return math.floor(seconds * rate + 0.5)


class _Clock:
    """Maps the times of a stream's frames to seconds since its first frame.

    Attributes:
        start: when the first frame came, by ``time.monotonic``.
        shown: of the last frame, in seconds.
    """

    def __init__(self) -> None:
        self.start = 0.0
        self.shown = -1.0
        self._offset = 0.0

    def place(self, stamp: float | None, now: float, *, is_paced: bool) -> float:
        """Return the time of a frame with the time ``stamp`` that came at ``now``."""
        if self.shown < 0:
            self.start, self._offset = now, -(stamp or 0.0)
            self.shown = 0.0
            return 0.0
        came = now - self.start
        shown = came if stamp is None else stamp + self._offset
        if stamp is not None and not is_paced and abs(shown - came) > _JUMP:
            # A stream's clock may begin anew, or be wrong by hours.
            shown = max(came, self.shown)
            self._offset = shown - stamp
        self.shown = max(self.shown, shown)
        return shown


def _open(address: LiveAddress) -> tuple[InputContainer, VideoStream]:
    if address.format == "v4l2" and (reason := why_not_camera(address.url)):
        raise UndecodableVideoError(address.label, reason)
    limits = {"max_pixels": str(MAX_PIXELS)}
    options = address.options | {"max_streams": str(MAX_STREAMS)}
    try:
        container = av.open(
            address.url,
            "r",
            format=address.format,
            options=limits,
            container_options=options,
            metadata_errors="replace",
        )
    except (FFmpegError, OSError, ValueError, MemoryError) as error:
        text = one_line(error).replace(address.url, address.label)
        raise UndecodableVideoError(
            address.label, f"cannot be opened as a stream of video ({text}); playlists are not followed"
        ) from None
    return container, video_stream(container, address.label, limits, 1)
