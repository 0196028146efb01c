"""Chooses the videos that a GPU's decoder gets: those with the CPU's frames and colours, if it measures faster."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from mote_fast.data.decoding.video_info import VideoInfo, open_video
from mote_fast.data.gpu.decode_server import MAX_BYTES, Abilities, StreamKind

# A decoder gets the videos of a batch at once. A video whose frames take more is read alone.
MAX_FRAME_BYTES = 2**29

# Refused videos of a kind after which the decoder gets no more of that kind.
MAX_REFUSALS = 3

# Upper bounds of the size classes, short side in pixels.
_SIZE_CLASSES = (288, 480, 720, 1080)


class Header(NamedTuple):
    """What a file's header says: FFmpeg's name of the container, and the number of frames, 0 if it has none."""

    container: str
    frames: int


def read_header(source: str | bytes, label: str) -> Header:
    """Read the header of a video, which messages call ``label``.

    Raises:
        UndecodableVideoError: the video cannot be opened.
    """
    with open_video(source, label) as (container, stream):
        return Header(container.format.name, stream.frames)


def why_not_gpu(info: VideoInfo, header: Header, size: int, frame_bytes: int, takes: Abilities) -> str | None:
    """Why a decoder should not get a video of ``size`` bytes and ``frame_bytes`` of frames, or None if it may.

    DALI counts frames by packets, ignores rotation and edit lists, and returns black for frames that it does not find.
    The colours are those of a decoded frame, because a header may contradict them.
    """
    timeline, colors = info.timeline, info.colors
    if info.codec not in takes.codecs:
        return f"codec {info.codec}"
    if info.rotation or info.mirrored:
        return "rotation"
    if timeline.pyav_only:
        return timeline.pyav_only
    if timeline.damaged:
        return "cut short"
    if not timeline.by_pts or timeline.packet_pts != timeline.pts or timeline.packet_pts[0] < 0:
        return "packets that are not its frames one by one"
    if header.frames not in (0, info.num_frames):
        return "an edit list, or a wrong frame count"
    if info.width % 2 or info.height % 2:
        return "odd size"
    if colors.pixel_format not in takes.pixel_formats:
        return f"pixel format {colors.pixel_format}"
    if colors.matrix not in takes.matrices:
        return f"colour matrix {colors.matrix}"
    if colors.is_full_range and not takes.full_range:
        return "full colour range"
    if size > MAX_BYTES:
        return f"over {MAX_BYTES >> 20} MiB"
    if frame_bytes > MAX_FRAME_BYTES:
        return f"frames of over {MAX_FRAME_BYTES >> 20} MiB"
    return None


def kind_of(info: VideoInfo, header: Header) -> StreamKind:
    """The kind of a video: its container, codec, and the class of its short side."""
    short = min(info.height, info.width)
    return StreamKind(header.container, info.codec, sum(short > end for end in _SIZE_CLASSES))


class DecodeTiming(NamedTuple):
    """Seconds that the same clips took; ``gpu`` is None if the GPU's decoder refused them."""

    gpu: float | None
    cpu: float


class Chooser:
    """Times the first video of each kind and reuses the result for the rest.

    If the decoder refuses the first video, the video itself may be the cause: the next ones are measured too, up to
    ``MAX_REFUSALS``.
    """

    def __init__(self) -> None:
        self._timings: dict[StreamKind, DecodeTiming] = {}
        self._refusals: Counter[StreamKind] = Counter()
        self._locks: dict[StreamKind, threading.Lock] = {}

    def prefers_gpu(self, kind: StreamKind, measure: Callable[[], DecodeTiming | None]) -> bool:
        """Return whether the GPU's decoder should get a video of ``kind``; ``measure`` times it. Thread-safe.

        ``measure`` returns None for a video that nothing can read: it says nothing about its kind. Other threads wait
        during a measurement, so that all get the same answer.
        """
        # setdefault is atomic.
        with self._locks.setdefault(kind, threading.Lock()):
            timing = self._timings.get(kind)
            if timing is None or (timing.gpu is None and self._refusals[kind] < MAX_REFUSALS):
                timing = measure()
                if timing is None:
                    return False
                self._timings[kind] = timing
                self._refusals[kind] += timing.gpu is None
        return timing.gpu is not None and timing.gpu <= timing.cpu
