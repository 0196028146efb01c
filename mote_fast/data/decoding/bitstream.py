"""The pictures inside a packet, from the first bits of the codec's own headers.

Containers may mislead: they mark pictures as key frames that need others, give B-frames the timestamps of decoding,
and store several pictures, or none, in a packet. The bit stream is what the decoder follows, so ``packet_index`` checks
the container against it. Each reader here looks at a few bytes of a packet and decodes nothing. A codec without a
reader is never trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

Kind = Literal["I", "P", "B"]


class Pictures(NamedTuple):
    """What a packet holds.

    Attributes:
        shown: pictures that a decoder outputs for it, 0 if its picture only serves as a reference, -1 if the bytes do
            not say.
        kind: coding of the first picture. A B-picture is shown before a picture that was decoded earlier.
        starts: whether decoding can start at this packet.
    """

    shown: int
    kind: Kind
    starts: bool


Reader = Callable[[memoryview], Pictures]

_UNKNOWN = Pictures(-1, "P", False)
_KEY, _INTRA = Pictures(1, "I", True), Pictures(1, "I", False)
_P, _B = Pictures(1, "P", False), Pictures(1, "B", False)
_HIDDEN = Pictures(0, "P", False)


def largest_empty_packet(codec: str, intra_only: bool) -> int:
    """Bytes up to which a packet holds no picture."""
    return 16 if intra_only and codec != "rawvideo" else 0


def reader_of(codec: str, intra_only: bool, extradata: bytes | None) -> Reader | None:
    """The reader of a codec's packets, or None if there is none.

    Args:
        codec: FFmpeg's name of the codec.
        intra_only: whether the codec codes every picture by itself.
        extradata: the codec's header from the container; it tells how H.264 and HEVC units are delimited.
    """
    if intra_only:
        empty = largest_empty_packet(codec, intra_only)
        return lambda data: _KEY if len(data) > empty else _HIDDEN
    if codec in _NAL_CODECS:
        return _nal_reader(_NAL_CODECS[codec], extradata or b"")
    return _READERS.get(codec)


class _NalCodec(NamedTuple):
    """What differs between H.264 and HEVC.

    ``inspect`` gets a packet and the bounds of one unit of it, and returns None if the unit begins no picture.
    """

    least_size: int
    length_size_at: int
    inspect: Callable[[memoryview, int, int], Pictures | None]


def _nal_reader(codec: _NalCodec, extradata: bytes) -> Reader:
    """A reader of packets whose units are preceded by their lengths, or delimited by start codes (Annex B)."""
    least, length_at, inspect = codec
    prefixed = len(extradata) > length_at and extradata[0] == 1
    length_size = (extradata[length_at] & 3) + 1 if prefixed else 0

    def read(data: memoryview) -> Pictures:
        found: Pictures | None = None
        recovers = False
        at, end = 0, len(data)
        whole = b"" if prefixed else bytes(data)
        stop = 0 if prefixed else whole.find(b"\0\0\1")
        while at < end and stop >= 0:
            if prefixed:
                start = at + length_size
                at = stop = start + int.from_bytes(data[at:start], "big")
                if stop > end:
                    return _UNKNOWN
            else:
                start = stop + 3
                stop = whole.find(b"\0\0\1", start)
                at = stop if stop >= 0 else end
            if at - start < least:
                continue
            picture = inspect(data, start, at)
            if picture is None:
                continue
            if picture is _RECOVERY:
                recovers = True
            elif found is not None:
                return _UNKNOWN
            else:
                found = picture
        if found is None:
            return _UNKNOWN
        return _KEY if recovers and found is _INTRA else found

    return read


# Not a picture: a message that the next I-picture starts decoding.
_RECOVERY = Pictures(0, "I", True)


def _exp_golomb(bits: int, width: int) -> tuple[int, int]:
    """Read an Exp-Golomb number from the top of ``width`` bits; return it and the bits that it takes."""
    zeros = width - bits.bit_length()
    taken = 2 * zeros + 1
    if taken > width:
        return -1, width
    return (bits >> (width - taken)) - 1, taken


def _h264_kinds() -> list[Pictures | None]:
    """By the first byte of a slice: None for a slice that begins no picture, otherwise the picture's kind."""
    kinds: list[Pictures | None] = [None] * 128
    for byte in range(128, 256):
        # The first bit says that the slice begins at macroblock 0; the slice's type follows.
        number, taken = _exp_golomb(byte & 127, 7)
        kinds.append({0: _P, 1: _B, 2: _INTRA, 3: _P, 4: _INTRA}[number % 5] if 0 <= number < 10 else _UNKNOWN)
        assert taken <= 7
    return kinds


_H264_KINDS = _h264_kinds()


def _inspect_h264(data: memoryview, start: int, end: int) -> Pictures | None:
    kind = data[start] & 31
    # Data partitions are slices in three units, of which the first has the header.
    if kind in (1, 2):
        return _H264_KINDS[data[start + 1]]
    if kind == 5:
        return _KEY if data[start + 1] & 128 else None
    if kind == 6:
        return _RECOVERY if _recovers_at_once(data[start:end]) else None
    return None


def _recovers_at_once(unit: memoryview) -> bool:
    """Whether an H.264 SEI unit says that decoding can start at this picture (recovery point, no frames to wait)."""
    at = 1
    while at + 2 < len(unit):
        kind = size = 0
        while at < len(unit) and unit[at] == 255:
            kind, at = kind + 255, at + 1
        if at >= len(unit):
            return False
        kind, at = kind + unit[at], at + 1
        while at < len(unit) and unit[at] == 255:
            size, at = size + 255, at + 1
        if at >= len(unit):
            return False
        size, at = size + unit[at], at + 1
        if kind == 6:
            # An Exp-Golomb 0 is a single set bit.
            return at < len(unit) and bool(unit[at] & 128)
        at += size
    return False


_HEVC_KINDS: tuple[Pictures, ...] = (_B, _P, _INTRA)


def _inspect_hevc(data: memoryview, start: int, end: int) -> Pictures | None:
    # Units of higher layers (depth, second eye, alpha) are not decoded.
    if (data[start] & 1) << 5 | data[start + 1] >> 3:
        return None
    kind = data[start] >> 1 & 63
    if kind in (36, 37) or 16 <= kind <= 18:
        # After an end of sequence or a broken link the decoder drops leading pictures.
        return _UNKNOWN
    if kind > 21 or 10 <= kind <= 15 or not data[start + 2] & 128:
        return None
    if kind >= 19:
        return _KEY
    # slice_pic_parameter_set_id, then slice_type.
    bits, width = int.from_bytes(data[start + 2 : min(start + 8, end)], "big"), 8 * min(6, end - start - 2)
    width -= 1
    number = 0
    for _ in range(2):
        number, taken = _exp_golomb(bits & (1 << width) - 1, width)
        width -= taken
    return _HEVC_KINDS[number] if 0 <= number < 3 else _UNKNOWN


_NAL_CODECS = {"h264": _NalCodec(2, 4, _inspect_h264), "hevc": _NalCodec(3, 21, _inspect_hevc)}


def _only(data: bytes, code: bytes) -> int:
    """Where the byte after a start code is, -1 if the code occurs never or twice."""
    at = data.find(code)
    return -1 if at < 0 or data.find(code, at + len(code)) >= 0 else at + len(code)


def _read_mpeg12(data: memoryview) -> Pictures:
    whole = bytes(data)
    at = _only(whole, b"\0\0\1\0")
    if not 0 < at < len(whole) - 1:
        return _UNKNOWN
    return (_UNKNOWN, _KEY, _P, _B, _UNKNOWN, _UNKNOWN, _UNKNOWN, _UNKNOWN)[whole[at + 1] >> 3 & 7]


# Bytes after the start code. A shorter picture may be one that is not coded, for which the decoder outputs nothing.
_LEAST_MPEG4_PICTURE = 6


def _read_mpeg4(data: memoryview) -> Pictures:
    whole = bytes(data)
    at = _only(whole, b"\0\0\1\xb6")
    if not 0 < at < len(whole) - _LEAST_MPEG4_PICTURE:
        return _UNKNOWN
    # S-pictures (global motion) are predicted as P-pictures are. The decoder leaves out some B-pictures.
    return (_KEY, _P, _UNKNOWN, _P)[whole[at] >> 6]


def _read_h263(data: memoryview) -> Pictures:
    """H.263, baseline or plus; the picture start code has 22 bits, the temporal reference 8."""
    if len(data) < 10 or int.from_bytes(data[:3], "big") >> 2 != 0x20:
        return _UNKNOWN
    # 34 bits: up to the first 4 bits of PTYPE after the start code and reference; 3 more hold the source format.
    bits = int.from_bytes(data[:10], "big")
    source_format = bits >> (80 - 38) & 7
    if source_format != 7:
        # PTYPE bit 13 marks PB-frames, which hold two pictures.
        predicted, two = bits >> (80 - 39) & 1, bits >> (80 - 43) & 1
        return _UNKNOWN if two else _P if predicted else _KEY
    # PLUSPTYPE: an update flag of 3 bits, 18 optional bits if it is 1, then the picture's type.
    at = 41 + (18 if bits >> (80 - 41) & 7 == 1 else 0)
    return {0: _KEY, 1: _P}.get(bits >> (80 - at - 3) & 7, _UNKNOWN)


def _read_flv1(data: memoryview) -> Pictures:
    """Sorenson H.263: a start code of 17 bits, version 5, reference 8, size 3 (0 and 1: 16 and 32 bits), type 2."""
    if len(data) < 10 or int.from_bytes(data[:3], "big") >> 7 != 1:
        return _UNKNOWN
    bits = int.from_bytes(data[:10], "big")
    size = bits >> (80 - 33) & 7
    at = 33 + {0: 16, 1: 32}.get(size, 0)
    kind = bits >> (80 - at - 2) & 3
    # Kind 2 is a disposable P-picture.
    return (_KEY, _P, _P, _UNKNOWN)[kind]


def _read_msmpeg4(data: memoryview) -> Pictures:
    return {0: _KEY, 1: _P}.get(data[0] >> 6, _UNKNOWN)


def _read_wmv2(data: memoryview) -> Pictures:
    return _P if data[0] & 128 else _KEY


def _read_vp8(data: memoryview) -> Pictures:
    # RFC 6386, section 9.1.
    if not data[0] & 16:
        return _HIDDEN
    return _P if data[0] & 1 else _KEY


def _read_vp9(data: memoryview) -> Pictures:
    """A frame, or a superframe whose index at the end gives the frames' sizes (VP9, annex B)."""
    marker = data[-1]
    frames = [data]
    if marker & 0xE0 == 0xC0:
        count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
        index = len(data) - 2 - count * width
        if index >= 0 and data[index] == marker:
            frames, at = [], 0
            for number in range(count):
                entry = index + 1 + number * width
                size = int.from_bytes(data[entry : entry + width], "little")
                frames.append(data[at : at + size])
                at += size
    shown, first = 0, None
    for frame in frames:
        if not len(frame) or frame[0] >> 6 != 2:
            return _UNKNOWN
        shift = 0 if frame[0] & 0x30 == 0x30 else 1
        bits = frame[0] >> shift
        if bits & 4:
            # It shows a picture decoded earlier.
            shown += 1
            first = first or _P
        else:
            shown += bits & 1
            first = first or (_P if bits & 2 else _KEY)
    return first._replace(shown=shown) if first is not None and shown != 1 else first or _UNKNOWN


_AV1_SEQUENCE, _AV1_HEADER, _AV1_FRAME = 1, 3, 6


def _read_av1(data: memoryview) -> Pictures:
    """A temporal unit: open bit stream units with their sizes (AV1, 5.3)."""
    at, end, shown = 0, len(data), 0
    first: Pictures | None = None
    has_sequence = still = False
    while at < end:
        header = data[at]
        kind, extended = header >> 3 & 15, header >> 2 & 1
        at += 1 + extended
        size = end - at
        if header & 2:
            size = shift = 0
            while at < end:
                byte = data[at]
                at += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
        if at + size > end:
            return _UNKNOWN
        if kind == _AV1_SEQUENCE and size:
            # seq_profile 3 bits, still_picture, reduced_still_picture_header.
            has_sequence, still = True, bool(data[at] & 8)
        elif kind in (_AV1_HEADER, _AV1_FRAME) and size:
            bits = data[at]
            if still:
                shown += 1
                first = first or _KEY
            elif bits & 128:
                shown += 1
                first = first or _P
            else:
                shown += bits >> 4 & 1
                is_key = bits >> 5 & 3 == 0 and bits & 16
                first = first or (_KEY if is_key and has_sequence else _P)
        at += size
    return first._replace(shown=shown) if first is not None and shown != 1 else first or _UNKNOWN


_READERS: dict[str, Reader] = {
    "mpeg1video": _read_mpeg12,
    "mpeg2video": _read_mpeg12,
    "mpeg4": _read_mpeg4,
    "h263": _read_h263,
    "h263p": _read_h263,
    "flv1": _read_flv1,
    "msmpeg4v2": _read_msmpeg4,
    "msmpeg4v3": _read_msmpeg4,
    "wmv1": _read_msmpeg4,
    "wmv2": _read_wmv2,
    "vp8": _read_vp8,
    "vp9": _read_vp9,
    "av1": _read_av1,
}
