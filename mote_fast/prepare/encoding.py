"""Encode one video for fast sparse decoding: small frames, close key frames, and the same frames in the same order."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from mote_fast.data.decoding.colors import LIMITED, SMPTE170M
from mote_fast.data.decoding.decode import probe
from mote_fast.data.decoding.frame_converter import FrameConverter
from mote_fast.data.decoding.video_info import CORRUPT, DamageError, DecodeBudget, VideoInfo, intact_frames, open_video
from mote_fast.errors import UndecodableVideoError, one_line
from mote_fast.prepare.prepare_settings import Encoding

# FFmpeg's filters for each clockwise rotation in degrees.
_TURNS = {0: (), 90: (("transpose", "clock"),), 180: (("hflip", ""), ("vflip", "")), 270: (("transpose", "cclock"),)}

# Times this close in seconds are equal: annotations are written in decimals, and frames are further apart.
_SAME_TIME = 1e-4


class Span(NamedTuple):
    """A part of a video: from ``start`` on, up to and without ``end``, in seconds."""

    start: float
    end: float


@dataclass(frozen=True)
class Encoded:
    """An output: its number of frames, and the source's damage if the output is only a part of it ("" if complete)."""

    num_frames: int
    lost: str


def encode(
    source: str, part: Path, encoding: Encoding, keep_intact_prefix: bool = False, span: Span | None = None
) -> Encoded:
    """Write a video as H.264 in MP4, yuv420p, limited range, rotated and mirrored as shown, no audio track.

    The frames are exactly those that ``probe`` counts in the source; their times are the source's, relative to its
    first frame. Colours are converted from the source's to BT.601. Frames whose size differs from the first frame's are
    scaled to it. The bytes are not reproducible: x264 may encode the same video differently in another run.

    Args:
        source: path of the video.
        part: path of the output.
        encoding: settings of the output.
        keep_intact_prefix: if the source is damaged, write the frames before the damage.
        span: write only the frames of this part of the source, see ``frames_within``; None writes all.

    Raises:
        VideoError: the source cannot be read, ends before the span, is damaged and ``keep_intact_prefix`` is not set,
            or has a size or times that H.264 in MP4 does not support.
        OSError: ``part`` cannot be written.
    """
    info = probe(source)
    wanted = range(info.num_frames) if span is None else frames_within(info, span)
    # Frames that the file declares and does not have come after the last one.
    cut_short = info.timeline.damaged and wanted.stop == info.num_frames
    damage = f"damaged or cut short after {info.num_frames} frames" if cut_short else ""
    frames = _Upright(source, info, encoding, wanted)
    written = 0
    try:
        # FFmpeg would take "a:b" for a protocol.
        with av.open(f"file:{part.absolute()}", "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = _add_stream(container, info, encoding)
            try:
                for frame in frames:
                    container.mux(stream.encode(frame))
                    written += 1
            except DamageError as error:
                damage = damage or f"frame {written} cannot be decoded ({error})"
            if not written:
                raise UndecodableVideoError(source, damage or "not one of its frames can be decoded; replace the file")
            container.mux(stream.encode(None))
    except FFmpegError as error:
        # A full disk, for example, is not the video's fault.
        if isinstance(error, OSError):
            raise
        raise UndecodableVideoError(source, f"its frames cannot be written as H.264 ({one_line(error)})") from error
    if written < len(wanted) and not damage:
        damage = f"only {written} of {len(wanted)} frames can be decoded"
    if damage and not keep_intact_prefix:
        raise UndecodableVideoError(source, damage)
    try:
        found = probe(str(part)).num_frames
    except UndecodableVideoError as error:
        raise UndecodableVideoError(source, f"its copy cannot be read back ({error.reason})") from error
    if found != written:
        raise UndecodableVideoError(source, f"its {written} frames became {found}; its timestamps cannot be kept")
    return Encoded(written, f"{damage}; kept the {written} frames before" if damage else "")


def frames_within(info: VideoInfo, span: Span) -> range:
    """Return the indices of the frames whose time lies in ``span``, or of the one shown then if it is that short.

    Times are those at which frames are shown, in seconds from the first frame; a span may end after the video.

    Raises:
        UndecodableVideoError: the video ends before the span, or does not tell its frames' times.
    """
    stamps = info.timeline.pts
    if info.timeline.by_pts:
        first = stamps[0] or 0
        times = [float(((pts or 0) - first) * info.timeline.time_base) for pts in stamps]
    elif info.fps:
        times = [at / info.fps for at in range(info.num_frames)]
    else:
        raise UndecodableVideoError(info.path, "does not tell its frames' times, so no part of it can be cut out")
    start, stop = (bisect_left(times, second - _SAME_TIME) for second in span)
    if start < stop:
        return range(start, stop)
    if start == len(times) and span.start >= max(info.duration, times[-1]):
        raise UndecodableVideoError(
            info.path, f"the part from {span.start:g} s is after its end, at {max(info.duration, times[-1]):.3f} s"
        )
    return range(max(start - 1, 0), max(start, 1))


def _add_stream(container: OutputContainer, info: VideoInfo, encoding: Encoding) -> VideoStream:
    rate = Fraction(info.fps or 25).limit_denominator(65535)
    options = {
        "crf": str(encoding.crf),
        "preset": encoding.preset,
        "g": str(encoding.key_interval),
        # Extra key frames at scene cuts would only make the key-frame interval uneven.
        "sc_threshold": "0",
        # No B-frames, no CABAC and no deblocking: a quarter more bytes, decoded in little more than half the time.
        "tune": "fastdecode",
        "bf": "0",
    }
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.width, stream.height = encoding.size_of(info.width, info.height)
    stream.pix_fmt = "yuv420p"
    # What readers assume of small videos that state no colours, and what DALI decodes.
    stream.codec_context.colorspace, stream.codec_context.color_range = SMPTE170M, LIMITED
    if info.pixel_aspect != 1:
        shape = info.pixel_aspect * Fraction(info.width, info.height) * Fraction(stream.height, stream.width)
        stream.codec_context.sample_aspect_ratio = shape.limit_denominator(255)
    # Files are already encoded in parallel.
    stream.codec_context.thread_count = 1
    stream.codec_context.time_base = info.timeline.time_base if info.timeline.by_pts else 1 / rate
    return stream


class _Upright:
    """Yields frames of an indexed video, rotated, at the output's size and times. Raises ``DamageError`` at damage."""

    def __init__(self, source: str, info: VideoInfo, encoding: Encoding, wanted: range) -> None:
        self._source = source
        self._info = info
        self._wanted = wanted
        width, height = encoding.size_of(info.width, info.height)
        mirror = (("hflip", ""),) if info.mirrored else ()
        scale = (
            "scale",
            f"{width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int:out_color_matrix=bt601:out_range=tv",
        )
        filters = (*mirror, *_TURNS[info.rotation], scale, ("format", "yuv420p"))
        self._convert = FrameConverter(source, info.timeline.time_base, filters)

    def __iter__(self) -> Iterator[VideoFrame]:
        timeline = self._info.timeline
        stamps = [pts for pts in timeline.pts if pts is not None] if timeline.by_pts else range(self._info.num_frames)
        with open_video(self._source, self._source) as (container, stream):
            # Whole videos are decoded, or all up to the span's end, and the process has a time limit.
            decoded = intact_frames(container, stream, DecodeBudget(self._source, math.inf))
            if not timeline.by_pts:
                # Counted from the first one; those with timestamps are found by them.
                decoded = itertools.islice(decoded, self._wanted.start, None)
            for number in self._wanted:
                stamp = stamps[number]
                frame = next(decoded, None)
                # Frames that are not in the index, such as those before the first key frame, are skipped.
                while timeline.by_pts and frame is not None and (frame.pts is None or frame.pts < stamp):
                    frame = next(decoded, None)
                if frame is None or (timeline.by_pts and frame.pts != stamp):
                    raise DamageError(f"frame {number} is missing")
                if frame.is_corrupt:
                    raise DamageError(CORRUPT)
                try:
                    upright = self._convert(frame)
                except FFmpegError as error:
                    raise DamageError(one_line(error)) from error
                upright.pts = stamp - stamps[self._wanted.start]
                # The encoder, not the source, chooses the key frames.
                upright.pict_type = PictureType.NONE
                yield upright
