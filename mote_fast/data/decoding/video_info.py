"""Properties of a video file, and how it is opened: the limits and checks that apply before any decoding."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from mote_fast.data.decoding.bitstream import largest_empty_packet
from mote_fast.data.decoding.colors import Colors
from mote_fast.data.decoding.formats import FORMATS, HEAD_BYTES, PROTOCOLS, why_not_video
from mote_fast.data.reading_choices import PixelAspect
from mote_fast.errors import MoteError, UndecodableVideoError, one_line
from mote_fast.runtime.text import is_text

# 8192 x 8192: twice 8K television. A header can declare any size, and the declaration alone must not exhaust memory.
MAX_PIXELS = 2**26

# More streams and frames than any real clip has; a file's index has an entry for each. 2**19 frames are 6 hours.
MAX_STREAMS = 100
MAX_FRAMES = 2**19

# Limit for the frames of one read, as RGB: 64 frames of 4K, 16 of 8K.
MAX_READ_BYTES = 2**31

# Limit for the file of one extracted frame: MAX_PIXELS of three bytes, hardly packed.
MAX_IMAGE_BYTES = 2**28

# Limit for the pixels that one pass over a video decodes: 2.5 hours of 1080p without a key frame to begin at.
MAX_DECODED_PIXELS = 2**39

# Bytes that a watched process may take to decode a video: the frames of the largest read twice, and the decoder's own.
MAX_MEMORY = 5 * 2**30


@dataclass(frozen=True)
class Timeline:
    """The position of each frame in a video file; the backends' index.

    ``pts`` are the frames' timestamps in presentation order, in units of ``time_base`` seconds. ``by_pts`` says that
    all are present and ascending, so that a timestamp identifies a frame. ``packet_pts`` are the sorted timestamps of
    all packets that are not discarded; it is empty where they do not identify the frames, or where the container marks
    packets as key frames that are none. ``damaged`` says that the file declares frames after the last one listed.
    ``pyav_only`` is the reason why other libraries cannot be given this file, empty if there is none.
    """

    stream_index: int
    time_base: Fraction
    pts: tuple[int | None, ...]
    by_pts: bool
    packet_pts: tuple[int, ...]
    damaged: bool
    pyav_only: str = ""


@dataclass(frozen=True)
class VideoInfo:
    """The properties of a video file that ``read_frames`` uses.

    ``num_frames`` is exact: frames 0 to ``num_frames - 1`` are those that a decoder outputs, in presentation order;
    the header's count is ignored. Damage inside a packet shows only when the frame is read. ``width`` and ``height``
    are in pixels, as ``read_frames`` returns the frames: if ``mirrored``, the stored picture is mirrored left to right,
    and it is then turned by ``rotation`` (degrees clockwise: 0, 90, 180 or 270). ``pixel_aspect`` is the width of a
    pixel over its height: 1 for square pixels. ``duration`` is the time in seconds from the start of the first frame to
    the end of the last, and ``fps`` the average rate, frames over duration (both 0.0 if the file does not tell).
    ``codec`` is FFmpeg's name. ``key_frames`` are indices at which decoding can start, and ``colors`` the first
    frame's.
    """

    path: str
    num_frames: int
    width: int
    height: int
    fps: float
    duration: float
    codec: str
    rotation: int
    key_frames: tuple[int, ...]
    timeline: Timeline = field(repr=False, compare=False)
    colors: Colors = field(repr=False, compare=False)
    mirrored: bool = False
    pixel_aspect: Fraction = Fraction(1)

    def displayed_size(self, pixel_aspect: PixelAspect) -> tuple[int, int]:
        """The (height, width) in square pixels, or in the file's pixels if their aspect is ignored."""
        width = self.width * self.pixel_aspect if pixel_aspect == "apply" else self.width
        return self.height, max(1, round(width))

    @property
    def stream_index(self) -> int:
        """The index of the video stream within the file, counted over streams of all kinds."""
        return self.timeline.stream_index


def check_read_size(path: str, frames: int, width: int, height: int, when: str = "") -> None:
    """Raise ``UndecodableVideoError`` if the frames of a video take more memory as RGB than ``MAX_READ_BYTES``.

    ``when`` names the step at which they have this size, if it is not the size in the file.
    """
    size = frames * width * height * 3
    if size > MAX_READ_BYTES:
        what = f"{frames} frames of {width}x{height}{when}"
        raise UndecodableVideoError(
            path, f"{what} take {size >> 20} MiB, over the limit of {MAX_READ_BYTES >> 20}; re-encode it smaller"
        )


class DecodeBudget:
    """The pixels that one pass over a video may decode: a small file can hold hours of work."""

    def __init__(self, label: str, pixels: float = MAX_DECODED_PIXELS) -> None:
        self._label = label
        self._left = pixels

    def spend(self, pixels: int) -> None:
        """Count a picture; raise ``UndecodableVideoError`` if it is one too many."""
        self._left -= pixels
        if self._left < 0:
            raise UndecodableVideoError(self._label, "takes too much decoding; cut it into clips, or re-encode it")


# Why a frame that the decoder outputs is not used.
CORRUPT = "the decoder marked a frame corrupt"


class DamageError(Exception):
    """A decoder found damage; the message describes it. Internal: callers see ``UndecodableVideoError``."""


@contextmanager
def as_input(source: str | bytes) -> Iterator[str | BinaryIO]:
    """The input of a decoder library for a path (``str``) or a whole file in memory (``bytes``)."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    path = os.path.abspath(source)
    # Both libraries encode names as UTF-8, and FFmpeg takes a percent sign for a pattern that other files match.
    if "%" in path or not is_text(path):
        with open(source, "rb") as file:
            yield file
    else:
        # Without the prefix, FFmpeg would read "a:b.mp4" as a protocol.
        yield f"file:{path}"


def head_of(source: str | bytes, label: str) -> bytes:
    """Return the first bytes of a video, which tell its format.

    Raises ``UndecodableVideoError`` if the file cannot be read.
    """
    if isinstance(source, bytes):
        return source[:HEAD_BYTES]
    try:
        with open(source, "rb", buffering=0) as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise UndecodableVideoError(label, f"cannot be read: {error.strerror}") from error


@contextmanager
def open_video(source: str | bytes, label: str, num_threads: int = 1) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a container and its best video stream, with the decoder set up but not started.

    Raises ``UndecodableVideoError`` if ``source`` is in none of ``FORMATS``, has no video, or exceeds ``MAX_PIXELS``.
    """
    kind = why_not_video(head_of(source, label))
    if kind is not None:
        raise UndecodableVideoError(label, f"{kind}, not a video; give the video file")
    limits = {"max_pixels": str(MAX_PIXELS)}
    container_limits = {
        "format_whitelist": FORMATS,
        "protocol_whitelist": PROTOCOLS,
        "max_streams": str(MAX_STREAMS),
    }
    with _reading(label), as_input(source) as file:
        try:
            container = av.open(
                file, "r", options=limits, container_options=container_limits, metadata_errors="replace"
            )
        except (FFmpegError, ValueError) as error:
            raise UndecodableVideoError(label, f"not a video that FFmpeg can open ({_why_not_open(error)})") from error
        with container:
            yield container, video_stream(container, label, limits, num_threads)


@contextmanager
def _reading(label: str) -> Iterator[None]:
    """Name the video in an error of its disk, which a file that is read through Python raises as it is."""
    try:
        yield
    except OSError as error:
        if isinstance(error, MoteError | FFmpegError):
            raise
        raise UndecodableVideoError(label, f"cannot be read: {error.strerror or one_line(error)}") from error


def _why_not_open(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"over {MAX_STREAMS} streams, or no memory"
    # What FFmpeg returns for a format that is not on the list.
    if isinstance(error, FFmpegError) and error.errno == errno.EINVAL:
        return "its format is not one of videos"
    return one_line(error)


def video_stream(container: InputContainer, label: str, limits: dict[str, str], num_threads: int) -> VideoStream:
    """Return the best video stream of a container, with the decoder set up; see ``open_video``."""
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise UndecodableVideoError(label, "holds no video stream; remove it from the list of clips")
    stream = max(streams, key=_rank)
    context = stream.codec_context
    if context is None:
        raise UndecodableVideoError(label, "its codec has no decoder in this FFmpeg; re-encode it")
    if context.width * context.height > MAX_PIXELS:
        size = f"{context.width}x{context.height}"
        raise UndecodableVideoError(label, f"declares frames of {size}, over the limit of {MAX_PIXELS} pixels")
    context.options = limits
    context.thread_count = num_threads
    context.thread_type = "SLICE" if num_threads == 1 else "AUTO"
    return stream


def _rank(stream: VideoStream) -> tuple[bool, int]:
    """Rank a stream as FFmpeg's command line does, moving ones before stills; of equal ones the first is taken.

    libavformat's own choice prefers a high bit rate, and so the alpha plane of some AVIF files.
    """
    context = stream.codec_context
    pixels = context.width * context.height if context is not None else 0
    return stream.frames != 1, pixels + 5_000_000 * bool(stream.disposition & Disposition.default)


def intact_frames(
    container: InputContainer,
    stream: VideoStream,
    budget: DecodeBudget,
    *,
    after_seek: bool = False,
    wanted: Container[int | None] | None = None,
) -> Iterator[VideoFrame]:
    """Decode from the current position of ``container``, in the decoder's output order, which is presentation order.

    A stream cut from a longer one begins with damage: errors before the first intact frame are passed over, and frames
    before it that are marked corrupt are part of the output, as they are when the file is played. Damage after it
    raises ``DamageError``, because the decoder would conceal it with content of other frames. With ``after_seek``,
    ``DamageError`` is also raised if the first packet is not a key frame. Given the timestamps ``wanted``, other frames
    may be left out: the decoder skips those that are not reference frames.
    """
    context = stream.codec_context
    started = False
    for packet, cut in _packets(container, stream, budget):
        # Seeking in a transport or program stream can land after the key frame, and a decoder may then guess content.
        if after_seek and packet is not None and not packet.is_keyframe:
            raise DamageError("seeking did not land on a key frame")
        after_seek = False
        if wanted is not None and packet is not None:
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        try:
            frames = context.decode(packet)
        except FFmpegError as error:
            if packet is not None and not started:
                continue
            raise DamageError(one_line(error)) from error
        for frame in frames:
            if frame.is_corrupt and started:
                raise DamageError(CORRUPT)
            started = started or not frame.is_corrupt
            yield frame
        if cut is not None:
            raise DamageError(one_line(cut)) from cut


def decode_packets(
    container: InputContainer, stream: VideoStream, budget: DecodeBudget
) -> Iterator[tuple[Packet | None, list[VideoFrame] | None]]:
    """Decode packet by packet from the current position of ``container``, and pass over what cannot be decoded.

    Yields each packet with the frames that the decoder outputs for it, or with None if it cannot be decoded; the last
    packet is None, with the frames that remain in the decoder.
    """
    for packet, _ in _packets(container, stream, budget):
        try:
            yield packet, stream.codec_context.decode(packet)
        except FFmpegError:
            yield packet, None


def _packets(
    container: InputContainer, stream: VideoStream, budget: DecodeBudget
) -> Iterator[tuple[Packet | None, FFmpegError | None]]:
    """Read the packets that may hold a picture; at the end None, which drains the decoder, and what cut reading off."""
    context = stream.codec_context
    codec = context.codec
    # The decoder would take an empty packet as the end of the stream.
    empty = largest_empty_packet(codec.canonical_name, codec.intra_only)
    cut: FFmpegError | None = None
    try:
        for packet in packets_of(container, stream):
            if packet.size > empty:
                budget.spend(context.width * context.height)
                yield packet, None
    except FFmpegError as error:
        cut = error
    yield None, cut


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Read the packets of a stream from the current position of ``container``.

    Where a stream appears in the middle of a file, which its header does not have, PyAV raises IndexError at the end
    of the file, after all packets.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):
            return
        yield packet


def is_entry(frame: VideoFrame) -> bool:
    """Whether the decoder says that decoding can start at this frame."""
    return bool(frame.key_frame) and frame.pict_type == PictureType.I and not frame.is_corrupt
