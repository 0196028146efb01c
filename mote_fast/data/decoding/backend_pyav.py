"""The PyAV backend: indexes a video by its packets, and decodes chosen frames.

Headers are not trusted. Every packet of the video stream is read, and only the first frame is decoded. Some packets do
not identify the frames that they hold; such a file is decoded once from end to end instead. The cases are: timestamps
missing or repeated, B-frames in MPEG-4 Part 2, AVI or ASF (their timestamps are FFmpeg's guess), interlaced transport
or program streams (a packet is a field), packets marked damaged, a stream that does not begin at a key frame, and
frames shown before the first key frame.
"""

from __future__ import annotations

import itertools
import logging
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mote_fast.data.decoding.video_info import MAX_FRAMES, DamageError, Timeline, VideoInfo, intact_frames, open_video
from mote_fast.errors import UndecodableVideoError, one_line

logger = logging.getLogger(__name__)

# Containers in which an interlaced frame may take two packets, one for each field.
_FIELD_PACKETS = frozenset({"mpegts", "mpeg", "h264", "mpegvideo", "vc1"})

# Containers that do not store presentation times.
_WITHOUT_PTS = frozenset({"avi", "asf"})

# Containers without an index: FFmpeg guesses seek positions, and torchcodec then decodes without reference frames.
_WITHOUT_INDEX = frozenset({"mpegts", "mpeg"})

# Packet sizes of a transport stream in bytes: plain, with a time code, and with error correction. A complete file is a
# multiple of one of them.
_TS_PACKETS = (188, 192, 204)

# Encoders of these codecs put a B-frame into its predecessor's packet, which makes the packets' timestamps wrong.
_PACKED_CODECS = frozenset({"mpeg4", "msmpeg4v2", "msmpeg4v3"})

# Decoders that skip non-reference frames at no cost.
_SKIPPING_CODECS = frozenset({"h264", "hevc"})


def why_unavailable() -> str | None:
    """Return None: PyAV bundles FFmpeg, and this module does not import without PyAV."""
    return None


@dataclass(frozen=True, slots=True)
class _Packet:
    """The fields of a packet that the index uses; ``pts`` and ``dts`` are in the stream's time base."""

    pts: int | None
    dts: int | None
    is_key: bool
    is_damaged: bool
    is_hidden: bool


def scan(source: str | bytes, label: str) -> VideoInfo:
    """Index the video at a path (``str``) or in memory (``bytes``); ``label`` names it in errors.

    Raises ``UndecodableVideoError`` if no frame can be decoded.
    """
    with open_video(source, label) as (container, stream):
        packets, total, first, cut = _read_packets(container, stream, label)
        if first is None:
            raise UndecodableVideoError(label, "not one of its frames can be decoded; replace the file")
        reason = _why_packets_mislead(packets, first, container, stream)
        if stream.time_base is None:
            raise UndecodableVideoError(label, "its video stream has no time base; re-encode it")
        codec, time_base, index = stream.codec_context.codec.canonical_name, stream.time_base, stream.index
        formats = set(container.format.name.split(","))
        rate = stream.average_rate or stream.guessed_rate
        # An MP4's frame count includes frames that its edit list hides.
        fewer = stream.frames > total and "mp4" not in formats
        cut = cut or ("mpegts" in formats and all(container.size % size for size in _TS_PACKETS))
        end = Fraction((container.start_time or 0) + (container.duration or 0), av.time_base) / time_base

    known = sorted(packet.pts for packet in packets if packet.pts is not None)
    distinct = not _WITHOUT_INDEX & formats and len(set(known)) == len(packets)
    pts: Sequence[int | None]
    if reason is None:
        shown = sorted(
            (packet.pts, packet.is_key) for packet in packets if not packet.is_hidden and packet.pts is not None
        )
        pts = [stamp for stamp, _ in shown]
        keys = [at for at, (_, is_key) in enumerate(shown) if is_key]
    else:
        logger.debug("%s: decoded from end to end to count its frames: %s", label, reason)
        pts, keys, stopped = _decode_timestamps(source, label)
        cut = cut or stopped
        # The first frame was decoded above, so skipping did not get past the damage.
        if not pts:
            raise UndecodableVideoError(label, "not one of its frames can be decoded; replace the file")
    by_pts = _rises(pts)
    if by_pts:
        certain = _count_certain(pts, packets)
        if cut or any(packet.is_damaged for packet in packets):
            pts = pts[:certain]
        elif (whole := _count_before_hole(pts, certain, end)) < len(pts):
            pts, cut = pts[:whole], True
        keys = [key for key in keys if key < len(pts)]
    timeline = Timeline(index, time_base, tuple(pts), by_pts, tuple(known) if distinct else (), cut or fewer)

    turn = _clockwise(first)
    height, width = (first.width, first.height) if turn % 180 else (first.height, first.width)
    fps = _average_rate(pts, time_base) if by_pts and len(pts) > 1 else float(rate or 0)
    duration = len(pts) / fps if fps else 0.0
    return VideoInfo(label, len(pts), width, height, fps, duration, codec, turn, tuple(keys), timeline)


def _read_packets(
    container: InputContainer, stream: VideoStream, label: str
) -> tuple[list[_Packet], int, VideoFrame | None, bool]:
    """The shown packets in file order, the count of all packets, the first frame, and whether reading was cut off."""
    packets: list[_Packet] = []
    total = 0
    first: VideoFrame | None = None
    context = stream.codec_context
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            total += 1
            if total > MAX_FRAMES:
                raise UndecodableVideoError(label, f"holds over {MAX_FRAMES} frames; cut it into clips")
            hidden = context.name == "vp8" and not _shows_vp8(packet)
            if not packet.is_discard:
                packets.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_corrupt, hidden))
            if first is None:
                first = _first_intact(context, packet)
        cut = False
    except FFmpegError as error:
        logger.debug("reading packets broke off: %s", one_line(error))
        cut = True
    return packets, total, first or _first_intact(context, None), cut


def _shows_vp8(packet: av.Packet) -> bool:
    # RFC 6386, section 9.1: bit 4 of the frame tag. A hidden frame only serves as a reference.
    return bool(memoryview(packet)[0] & 0x10)


def _first_intact(context: av.VideoCodecContext, packet: av.Packet | None) -> VideoFrame | None:
    try:
        frames = context.decode(packet)
    except FFmpegError:
        # A stream cut from a longer one begins with packets whose reference frames are missing.
        return None
    return next((frame for frame in frames if not frame.is_corrupt), None)


def _why_packets_mislead(
    packets: Sequence[_Packet], first: VideoFrame, container: InputContainer, stream: VideoStream
) -> str | None:
    """Why the packets do not identify the frames of the file, or None if they do."""
    pts = [packet.pts for packet in packets if packet.pts is not None]
    formats = set(container.format.name.split(","))
    if len(pts) < len(packets):
        return "packets without timestamps"
    if len(set(pts)) < len(pts):
        return "packets that share a timestamp"
    reordered = stream.codec_context.has_b_frames or pts != sorted(pts)
    if reordered and (formats & _WITHOUT_PTS or stream.codec_context.name in _PACKED_CODECS):
        return "B-frames whose timestamps the container guesses"
    if first.interlaced_frame and formats & _FIELD_PACKETS:
        return "packets that may hold single fields"
    if any(packet.is_damaged for packet in packets):
        return "packets marked damaged"
    if not packets or not packets[0].is_key:
        return "a start that is not a key frame"
    if pts[0] != min(pts):
        return "pictures shown before the first key frame"
    return None


def _decode_timestamps(source: str | bytes, label: str) -> tuple[list[int | None], list[int], bool]:
    """The timestamps of all frames as decoded, the indices of the key frames, and whether damage ended decoding."""
    pts: list[int | None] = []
    keys: list[int] = []
    with open_video(source, label) as (container, stream):
        try:
            for frame in intact_frames(container, stream):
                if frame.key_frame:
                    keys.append(len(pts))
                pts.append(frame.pts)
        except DamageError as error:
            logger.debug("%s: decoding broke off after %d frames: %s", label, len(pts), error)
            return pts, keys, True
    return pts, keys, False


def _count_certain(pts: Sequence[int | None], packets: Sequence[_Packet]) -> int:
    """Number of frames of a truncated file whose index is certain.

    Lost packets follow the last intact one in decoding order, and a frame is shown no earlier than it is decoded, so no
    lost frame precedes that packet's decoding time. A frame after it may follow lost B-frames.
    """
    decoded = [packet.dts for packet in packets if packet.dts is not None and not packet.is_damaged]
    return max(1, sum(stamp is not None and stamp <= decoded[-1] for stamp in pts)) if decoded else len(pts)


def _count_before_hole(pts: Sequence[int | None], certain: int, end: Fraction) -> int:
    """Number of frames before a gap at the end that lost B-frames may have left, in a file without a damage mark.

    Matroska and Flash readers silently drop a truncated packet. A packet counts as lost if the header puts the end of
    the file later than the last frame, and one of the last frames is too far from the frame before it.
    """
    known = [stamp for stamp in pts if stamp is not None]
    gaps = [after - before for before, after in itertools.pairwise(known)]
    if not gaps:
        return len(pts)
    widest = 1.5 * sorted(gaps)[len(gaps) // 2]
    if end - known[-1] <= widest:
        return len(pts)
    return next((at + 1 for at in range(certain - 1, len(gaps)) if gaps[at] > widest), len(pts))


def _rises(pts: Sequence[int | None]) -> bool:
    known = [p for p in pts if p is not None]
    return len(known) == len(pts) and all(a < b for a, b in itertools.pairwise(known))


def _average_rate(pts: Sequence[int | None], time_base: Fraction) -> float:
    first, last = pts[0], pts[-1]
    assert first is not None
    assert last is not None
    return float((len(pts) - 1) / ((last - first) * time_base))


def _clockwise(frame: VideoFrame) -> int:
    # The display matrix is counter-clockwise; the rotation is rounded to the nearest quarter turn, as in torchcodec.
    return round(-frame.rotation / 90) % 4 * 90


def read(source: str | bytes, info: VideoInfo, indices: Sequence[int], num_threads: int) -> torch.Tensor:
    """Decode the frames at ascending distinct ``indices`` of an indexed video: uint8 ``[len(indices), H, W, 3]``.

    Raises ``UndecodableVideoError`` if one of them cannot be decoded.
    """
    jumps, skip = _plan_jumps(indices, info), can_skip(info)
    if jumps or skip:
        try:
            return _read(source, info, indices, jumps, skip, num_threads)
        except (DamageError, FFmpegError) as error:
            # Skipping delays the decoder's output, so damage after a wanted frame can lose that frame.
            logger.debug("%s: decoding every frame from the start instead: %s", info.path, one_line(error))
    try:
        return _read(source, info, indices, {}, False, num_threads)
    except (DamageError, FFmpegError) as error:
        raise UndecodableVideoError(info.path, f"a frame cannot be decoded ({one_line(error)})") from error


def _plan_jumps(indices: Sequence[int], info: VideoInfo) -> dict[int, int]:
    """Map wanted frames to the key frame to seek to, where one lies between the previous wanted frame and this one."""
    jumps: dict[int, int] = {}
    before = -1
    for index in indices:
        at = bisect_right(info.key_frames, index) - 1
        if info.timeline.by_pts and at >= 0 and info.key_frames[at] > before + 1:
            jumps[index] = info.key_frames[at]
        before = index
    return jumps


def _read(
    source: str | bytes, info: VideoInfo, indices: Sequence[int], jumps: dict[int, int], skip: bool, num_threads: int
) -> torch.Tensor:
    pts = info.timeline.pts
    out: np.ndarray | None = None
    with open_video(source, info.path, num_threads) as (container, stream):
        to_rgb = _RgbConverter(info.timeline.time_base, num_threads)
        wanted = {pts[index] for index in indices} if skip else None
        frames = intact_frames(container, stream, wanted=wanted)
        position = 0
        for row, index in enumerate(indices):
            if index in jumps:
                target = pts[jumps[index]]
                assert target is not None
                container.seek(target, stream=stream)
                frames = intact_frames(container, stream, after_seek=True, wanted=wanted)
            for frame in frames:
                position += 1
                if position > index if not info.timeline.by_pts else _reaches(frame, pts[index]):
                    break
            else:
                raise DamageError(f"the file ends before frame {index}")
            if info.timeline.by_pts and frame.pts != pts[index]:
                raise DamageError(f"frame {index} is not where the file's packets place it")
            image = np.rot90(to_rgb(frame), -info.rotation // 90)
            if out is None:
                out = np.empty((len(indices), *image.shape), np.uint8)
            if image.shape != out.shape[1:]:
                raise UndecodableVideoError(
                    info.path,
                    f"frame {index} is {image.shape[1]}x{image.shape[0]} pixels and the ones before it "
                    f"{out.shape[2]}x{out.shape[1]}; re-encode the video to one size",
                )
            out[row] = image
    assert out is not None
    return torch.from_numpy(out)


def can_skip(info: VideoInfo) -> bool:
    """Whether reading skips the frames that are neither wanted nor used as references."""
    # A packet's timestamp must be its frame's, and the decoder must know which frames are references.
    return info.codec in _SKIPPING_CODECS and info.timeline.by_pts and bool(info.timeline.packet_pts)


def _reaches(frame: VideoFrame, pts: int | None) -> bool:
    return frame.pts is not None and pts is not None and frame.pts >= pts


class _RgbConverter:
    """Converts decoded frames to RGB as torchcodec does: through a filter graph with FFmpeg's own defaults.

    ``VideoFrame.reformat`` places the chroma samples of high-bit-depth video differently, some grey levels off.
    """

    def __init__(self, time_base: Fraction, num_threads: int) -> None:
        self._time_base = time_base
        self._num_threads = num_threads
        self._kind: tuple[object, ...] | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Return uint8 ``[H, W, 3]``, a view that keeps the frame's memory alive."""
        kind = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if kind != self._kind:
            self._build(frame)
            self._kind = kind
        self._source.push(frame)
        rgb = self._sink.pull()
        assert isinstance(rgb, VideoFrame)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(rgb.height, plane.line_size)
        return rows[:, : rgb.width * 3].reshape(rgb.height, rgb.width, 3)

    def _build(self, frame: VideoFrame) -> None:
        graph = Graph()
        # PyAV before version 18 lacks this setting; FFmpeg then chooses.
        if hasattr(graph, "threads"):
            graph.threads = self._num_threads
        self._source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._time_base
        )
        to_rgb = graph.add("format", "rgb24")
        self._sink = graph.add("buffersink")
        self._source.link_to(to_rgb)
        to_rgb.link_to(self._sink)
        graph.configure()
        self._graph = graph
