"""The index of a video file: its frames in presentation order, found from its packets and checked.

Frame n is the n-th picture that a decoder outputs when it plays the file from the start. Neither headers nor packets
are trusted to say which that is. Every packet of the stream is read, and the bit stream is compared with what the
container says (``bitstream``). Where they disagree, or nothing can be compared, the file is decoded once from end to
end, and the decoder's output is the index. The cases are listed in ``_why_packets_mislead`` and docs/decoding.md.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mote_fast.data.decoding.bitstream import Pictures, reader_of
from mote_fast.data.decoding.colors import Colors
from mote_fast.data.decoding.formats import is_certain
from mote_fast.data.decoding.orientation import orientation_of
from mote_fast.data.decoding.video_info import (
    MAX_FRAMES,
    DecodeBudget,
    Timeline,
    VideoInfo,
    decode_packets,
    head_of,
    is_entry,
    open_video,
    packets_of,
)
from mote_fast.errors import UndecodableVideoError, one_line

logger = logging.getLogger(__name__)

# Containers that store a time for every packet; FFmpeg makes up those of others, such as raw streams. Not all of them
# have an index for seeking, and FFmpeg takes bytes after the last picture of NUT for a packet.
_SEEKABLE = frozenset({"mov", "matroska", "flv", "mpegts", "mpeg", "mxf", "ivf", "avi", "asf"})
_TIMED = _SEEKABLE | {"gif", "apng", "nut"}

# Of these, containers that do not store presentation times.
_WITHOUT_PTS = frozenset({"avi", "asf"})

# Containers in which an interlaced frame may take two packets, one for each field.
_FIELD_PACKETS = frozenset({"mpegts", "mpeg"})

# Containers without an index: FFmpeg guesses seek positions, and torchcodec then decodes without reference frames.
_WITHOUT_INDEX = frozenset({"mpegts", "mpeg"})

# Packet sizes of a transport stream in bytes: plain, with a time code, and with error correction. A complete file is a
# multiple of one of them.
_TS_PACKETS = (188, 192, 204)

_UNCHECKED = Pictures(1, "I", True)
_OTHER_ORDER = "timestamps that are not the order of its pictures"

# The longest ratio of a pixel's sides that is believed; a header can state any.
_MAX_PIXEL_ASPECT = 10


@dataclass
class _Packets:
    """What reading all packets found; times are in the stream's time base, and discarded packets are left out.

    Attributes:
        pts: of every packet, in file order.
        keys: times of the packets at which decoding can start.
        hidden: times of the packets whose picture is not shown.
        last_dts: decoding time of the last intact packet.
        last_duration: of the packet that is shown last.
        total: packets, with discarded ones.
        first: the first intact frame.
        starts_at_key: whether decoding can start at the first packet.
        is_cut: whether reading broke off.
        is_damaged: whether a packet is marked damaged.
        keys_hold: whether decoding can start at every packet that the container marks as a key frame.
        misleading: why the packets do not identify the frames, as far as one after the other shows it.
    """

    pts: list[int | None] = field(default_factory=list)
    keys: set[int | None] = field(default_factory=set)
    hidden: set[int | None] = field(default_factory=set)
    last_dts: int | None = None
    last_duration: int = 0
    total: int = 0
    first: VideoFrame | None = None
    starts_at_key: bool = False
    is_cut: bool = False
    is_damaged: bool = False
    keys_hold: bool = True
    misleading: str | None = None


@dataclass
class _Decoded:
    """The frames as decoded from end to end: times, indices of key frames, and whether the last packet is damaged."""

    pts: list[int | None] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    is_cut: bool = False
    last_duration: int = 0


def scan(source: str | bytes, label: str) -> VideoInfo:
    """Index the video at a path (``str``) or in memory (``bytes``); ``label`` names it in errors.

    Raises ``UndecodableVideoError`` if no frame can be decoded.
    """
    with open_video(source, label) as (container, stream):
        packets = _read_packets(container, stream, label)
        first = packets.first
        if first is None:
            raise UndecodableVideoError(label, "not one of its frames can be decoded; replace the file")
        if stream.time_base is None:
            raise UndecodableVideoError(label, "its video stream has no time base; re-encode it")
        formats = set(container.format.name.split(","))
        guessed = _why_times_are_guessed(packets, formats, stream)
        reason = guessed or _why_packets_mislead(packets, formats)
        codec, time_base, index = stream.codec_context.codec.canonical_name, stream.time_base, stream.index
        rate = stream.average_rate or stream.guessed_rate
        # An MP4's frame count includes frames that its edit list hides.
        fewer = stream.frames > packets.total and "mp4" not in formats
        cut = (
            packets.is_cut
            or ("mpegts" in formats and all(container.size % size for size in _TS_PACKETS))
            or ("mp4" in formats and stream.frames > packets.total and _ends_before_its_index(container, stream))
        )
        end = Fraction((container.start_time or 0) + (container.duration or 0), av.time_base) / time_base
        aspect = _pixel_aspect(stream)
        orientation = orientation_of(first, source)
        pyav_only = _why_pyav_only(container, head_of(source, label))

    keys_hold, last_duration = packets.keys_hold, packets.last_duration
    known = sorted(stamp for stamp in packets.pts if stamp is not None)
    shown = [stamp for stamp in known if stamp not in packets.hidden] if packets.hidden else known
    pts: Sequence[int | None]
    if reason is None:
        pts, keys = shown, [at for at, stamp in enumerate(shown) if stamp in packets.keys]
    else:
        logger.debug("%s: decoded from end to end to find its frames: %s", label, reason)
        decoded = _decode(source, label)
        # The first frame was decoded above, so skipping did not get past the damage.
        if not decoded.pts:
            raise UndecodableVideoError(label, "not one of its frames can be decoded; replace the file")
        pts, keys, last_duration = decoded.pts, decoded.keys, decoded.last_duration
        cut = cut or decoded.is_cut
        keys_hold = keys_hold and packets.keys <= {pts[key] for key in keys}
    one_by_one = pts == shown[: len(pts)]
    if not one_by_one or not _SEEKABLE & formats:
        # What a decoder outputs after seeking is known only where packets are pictures.
        keys = [0]
    by_pts = (guessed is None or len(pts) == 1) and _rises(pts)
    if by_pts:
        if cut or packets.is_damaged:
            pts = pts[: _count_certain(pts, packets.last_dts)]
        elif (whole := _count_before_hole(pts, packets.last_dts, end)) < len(pts):
            pts, cut = pts[:whole], True
        keys = [key for key in keys if key < len(pts)]
    has_index = one_by_one and keys_hold and not _WITHOUT_INDEX & formats and len(set(known)) == len(packets.pts)
    timeline = Timeline(
        stream_index=index,
        time_base=time_base,
        pts=tuple(pts),
        by_pts=by_pts,
        packet_pts=tuple(known) if has_index else (),
        damaged=cut or fewer,
        pyav_only=pyav_only if by_pts else "its timestamps do not identify its frames",
    )
    duration = _duration(pts, last_duration, time_base, rate)
    height, width = first.height, first.width
    if orientation.rotation % 180:
        height, width, aspect = width, height, 1 / aspect
    return VideoInfo(
        path=label,
        num_frames=len(pts),
        width=width,
        height=height,
        fps=len(pts) / duration if duration else 0.0,
        duration=duration,
        codec=codec,
        rotation=orientation.rotation,
        key_frames=tuple(keys),
        timeline=timeline,
        colors=Colors.of(first),
        mirrored=orientation.mirrored,
        pixel_aspect=aspect,
    )


def _ends_before_its_index(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the index of an MP4 places a frame after the end of the file: one cut between two frames just ends."""
    return any(entry.pos + entry.size > container.size for entry in stream.index_entries)


def _read_packets(container: InputContainer, stream: VideoStream, label: str) -> _Packets:
    """Read every packet, look into each, and decode until the first frame comes out."""
    found = _Packets()
    context = stream.codec_context
    codec = context.codec
    read = reader_of(codec.canonical_name, codec.intra_only, context.extradata)
    budget = DecodeBudget(label)
    latest: int | None = None
    try:
        for packet in packets_of(container, stream):
            if packet.size == 0:
                continue
            found.total += 1
            if found.total > MAX_FRAMES:
                raise UndecodableVideoError(label, f"holds over {MAX_FRAMES} frames; cut it into clips")
            pts, is_key = packet.pts, packet.is_keyframe
            shown, kind, starts = read(memoryview(packet)) if read is not None else _UNCHECKED
            if is_key and not starts:
                found.keys_hold = False
            if shown != 1 and shown != 0:
                found.misleading = "packets that do not hold one picture each"
            if pts is not None and shown:
                # A B-picture is shown before the latest picture so far, any other after it.
                if latest is None or pts > latest:
                    if kind == "B":
                        found.misleading = _OTHER_ORDER
                    latest, found.last_duration = pts, packet.duration or 0
                elif kind != "B":
                    found.misleading = _OTHER_ORDER
            if packet.is_corrupt:
                found.is_damaged = True
            elif packet.dts is not None:
                found.last_dts = packet.dts
            if not packet.is_discard:
                found.starts_at_key = found.starts_at_key or (is_key and starts and not found.pts)
                found.pts.append(pts)
                if is_key and starts:
                    found.keys.add(pts)
                if not shown:
                    found.hidden.add(pts)
            if found.first is None:
                budget.spend(context.width * context.height)
                found.first = _first_intact(context, packet)
    except FFmpegError as error:
        logger.debug("reading packets broke off: %s", one_line(error))
        found.is_cut = True
    if read is None:
        found.misleading = "a codec whose packets cannot be checked"
    found.first = found.first or _first_intact(context, None)
    return found


def _first_intact(context: av.VideoCodecContext, packet: av.Packet | None) -> VideoFrame | None:
    try:
        frames = context.decode(packet)
    except FFmpegError:
        # A stream cut from a longer one begins with packets whose reference frames are missing.
        return None
    return next((frame for frame in frames if not frame.is_corrupt), None)


def _why_times_are_guessed(packets: _Packets, formats: set[str], stream: VideoStream) -> str | None:
    """Why FFmpeg makes up the frames' times, which then differ after seeking; None if the container states them."""
    if not formats & _TIMED:
        return "a container without times"
    if formats & _WITHOUT_PTS and (stream.codec_context.has_b_frames or not _rises(packets.pts)):
        return "B-frames in a container without presentation times"
    return None


def _why_packets_mislead(packets: _Packets, formats: set[str]) -> str | None:
    """Why the packets do not identify the frames of the file, or None if they do."""
    pts, first = packets.pts, packets.first
    assert first is not None
    if not formats & _SEEKABLE:
        return "a container that may take other bytes for packets"
    if None in pts:
        return "packets without timestamps"
    if len(set(pts)) < len(pts):
        return "packets that share a timestamp"
    if first.interlaced_frame and formats & _FIELD_PACKETS:
        return "packets that may hold single fields"
    if packets.is_damaged:
        return "packets marked damaged"
    if not packets.starts_at_key:
        return "a start that is not a key frame"
    if pts[0] != min(stamp for stamp in pts if stamp is not None):
        return "pictures shown before the first key frame"
    return packets.misleading


def _why_pyav_only(container: InputContainer, head: bytes) -> str:
    """Why other libraries cannot be given a file whose timestamps identify its frames; empty if they can."""
    if not is_certain(head, container.format.name):
        return "its first bytes leave its format open"
    if _WITHOUT_INDEX & set(container.format.name.split(",")):
        return "its container has no index for seeking"
    # FFmpeg's versions number them differently.
    return "it has several video streams" if len(container.streams.video) > 1 else ""


def _decode(source: str | bytes, label: str) -> _Decoded:
    """Decode a video from end to end and pass over what cannot be decoded, as players do."""
    found = _Decoded()
    with open_video(source, label) as (container, stream):
        for packet, frames in decode_packets(container, stream, DecodeBudget(label)):
            if packet is not None:
                found.is_cut = frames is None
            for frame in frames or ():
                if is_entry(frame):
                    found.keys.append(len(found.pts))
                found.pts.append(frame.pts)
                found.last_duration = frame.duration or 0
    if found.is_cut:
        logger.debug("%s: the last packet cannot be decoded, after %d frames", label, len(found.pts))
    return found


def _count_certain(pts: Sequence[int | None], last_dts: int | None) -> int:
    """Number of frames of a truncated file whose index is certain.

    Lost packets follow the last intact one in decoding order, and a frame is shown no earlier than it is decoded, so no
    lost frame precedes that packet's decoding time. A frame after it may follow lost B-frames.
    """
    if last_dts is None:
        return len(pts)
    return max(1, sum(stamp is not None and stamp <= last_dts for stamp in pts))


def _count_before_hole(pts: Sequence[int | None], last_dts: int | None, end: Fraction) -> int:
    """Number of frames before a gap at the end that lost B-frames may have left, in a file without a damage mark.

    Matroska and Flash readers silently drop a truncated packet. A packet counts as lost if the header puts the end of
    the file later than the last frame, and one of the last frames is too far from the frame before it.
    """
    known = [stamp for stamp in pts if stamp is not None]
    gaps = list(map(operator.sub, known[1:], known))
    if not gaps:
        return len(pts)
    widest = 1.5 * sorted(gaps)[len(gaps) // 2]
    if end - known[-1] <= widest:
        return len(pts)
    certain = _count_certain(pts, last_dts)
    return next((at + 1 for at in range(certain - 1, len(gaps)) if gaps[at] > widest), len(pts))


def _rises(pts: Sequence[int | None]) -> bool:
    known = [p for p in pts if p is not None]
    return len(known) == len(pts) and all(map(operator.lt, known, known[1:]))


def _duration(pts: Sequence[int | None], last: int, time_base: Fraction, rate: Fraction | None) -> float:
    """Seconds from the start of the first frame to the end of the last one, which lasts ``last`` if that is known."""
    known = [stamp for stamp in pts if stamp is not None]
    if len(known) == len(pts) and (last > 0 or len(pts) > 1):
        span = max(known) - min(known)
        return float((span + (last if last > 0 else Fraction(span, len(pts) - 1))) * time_base)
    return float(len(pts) / rate) if rate else 0.0


def _pixel_aspect(stream: VideoStream) -> Fraction:
    """Width of a stored pixel over its height; 1 if the file states none, or none that can be true."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT else Fraction(1)
