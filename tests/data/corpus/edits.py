"""Lies: what a container says about its packets, made wrong by editing packets or bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.data.corpus.pictures import ORIENTATIONS


@dataclass(frozen=True)
class Piece:
    """A packet to be written; times are in ticks of the stream's time base."""

    data: bytes
    pts: int
    dts: int
    key: bool
    step: int


Edit = Callable[[list[Piece], random.Random, str], list[Piece]]


def _all_key(pieces: list[Piece], draws: random.Random, kind: str) -> list[Piece]:
    return [replace(piece, key=True) for piece in pieces]


def _no_key(pieces: list[Piece], draws: random.Random, kind: str) -> list[Piece]:
    return [replace(piece, key=number == 0) for number, piece in enumerate(pieces)]


def _pts_is_dts(pieces: list[Piece], draws: random.Random, kind: str) -> list[Piece]:
    first = min(piece.dts for piece in pieces)
    return [replace(piece, pts=piece.dts - min(first, 0), dts=piece.dts - min(first, 0)) for piece in pieces]


def _merged(pieces: list[Piece], draws: random.Random, kind: str) -> list[Piece]:
    """Put a packet into the one before it, at about every fifth place."""
    merged = [pieces[0]]
    for piece in pieces[1:]:
        if draws.random() < 0.2:
            merged[-1] = replace(merged[-1], data=merged[-1].data + piece.data)
        else:
            merged.append(piece)
    return merged


# A unit that is no picture: an access unit delimiter, a comment, a stuffing picture.
_NO_PICTURE = {
    "h264": b"\x09\xf0",
    "hevc": b"\x46\x01\x50",
    "mpeg4": b"\x00\x00\x01\xb2mote",
    "mpeg2": b"\x00\x00\x01\xb2mote",
    "mpeg1": b"\x00\x00\x01\xb2mote",
}


def _no_picture(pieces: list[Piece], draws: random.Random, kind: str) -> list[Piece]:
    """Packets without a picture between the others, at their own times."""
    unit = _NO_PICTURE.get(kind, b"")
    if kind in ("h264", "hevc"):
        is_annexb = pieces[0].data[:4] == b"\x00\x00\x00\x01"
        unit = (b"\x00\x00\x00\x01" if is_annexb else struct.pack(">I", len(unit))) + unit
    out = []
    for piece in pieces:
        out.append(piece)
        if unit and draws.random() < 0.2:
            half = max(1, piece.step // 2)
            out.append(Piece(unit, piece.pts + half, piece.dts + half, False, half))
    return out


def _empty_packets(pieces: list[Piece], draws: random.Random, kind: str) -> list[Piece]:
    out = []
    for piece in pieces:
        out.append(piece)
        if draws.random() < 0.2:
            half = max(1, piece.step // 2)
            out.append(Piece(b"", piece.pts + half, piece.dts + half, False, half))
    return out


def _same_pts(pieces: list[Piece], draws: random.Random, kind: str) -> list[Piece]:
    return [
        replace(piece, pts=max(pieces[at - 1].pts, piece.dts)) if at and draws.random() < 0.2 else piece
        for at, piece in enumerate(pieces)
    ]


def _jittered_pts(pieces: list[Piece], draws: random.Random, kind: str) -> list[Piece]:
    return [replace(piece, pts=max(piece.dts, piece.pts + draws.randint(-2, 2) * piece.step)) for piece in pieces]


def _descending_pts(pieces: list[Piece], draws: random.Random, kind: str) -> list[Piece]:
    last = max(piece.pts for piece in pieces)
    return [replace(piece, pts=last + piece.step * (len(pieces) - at)) for at, piece in enumerate(pieces)]


def _first_packet_lost(pieces: list[Piece], draws: random.Random, kind: str) -> list[Piece]:
    return pieces[1:] if len(pieces) > 2 else pieces


PACKET_EDITS: dict[str, Edit] = {
    "all_key": _all_key,
    "no_key": _no_key,
    "pts_is_dts": _pts_is_dts,
    "merged": _merged,
    "no_picture": _no_picture,
    "empty_packets": _empty_packets,
    "same_pts": _same_pts,
    "jittered_pts": _jittered_pts,
    "descending_pts": _descending_pts,
    "first_packet_lost": _first_packet_lost,
}


def state_orientation(orientation: int) -> Edit:
    """Put H.264's display orientation message (H.264, D.1.27) before each picture."""
    mirrored, turns = ORIENTATIONS[orientation]
    # Not cancelled, mirrored or not left to right and top to bottom, the angle counter-clockwise in 16 bits, for this
    # picture, no extension; then the stop bit, and the same of the whole unit.
    bits = f"0{mirrored:d}0{(-turns % 4) << 14:016b}01001"
    message = b"\0\0\0\1\x06\x2f\x03" + int(bits, 2).to_bytes(3, "big") + b"\x80"

    def edit(pieces: list[Piece], draws: random.Random, kind: str) -> list[Piece]:
        return [replace(piece, data=message + piece.data) for piece in pieces]

    return edit


def hide_box(path: Path, name: bytes) -> None:
    """Rename an MP4's boxes of a type to "free", which readers skip."""
    path.write_bytes(path.read_bytes().replace(name, b"free"))


def shift_stss(path: Path, draws: random.Random) -> None:
    """Let an MP4's table of key frames name other samples (ISO 14496-12, 8.6.2)."""
    data = bytearray(path.read_bytes())
    at = data.find(b"stss")
    if at >= 0:
        (count,) = struct.unpack_from(">I", data, at + 8)
        for entry in range(1, count):
            place = at + 12 + 4 * entry
            (sample,) = struct.unpack_from(">I", data, place)
            struct.pack_into(">I", data, place, max(2, sample + draws.choice((-1, 1))))
        path.write_bytes(data)


def start_later(path: Path, pictures: int, rate: float) -> None:
    """Let an MP4's edit list leave out the first pictures (ISO 14496-12, 8.6.6)."""
    data = bytearray(path.read_bytes())
    at, clock = data.find(b"elst"), data.find(b"mdhd")
    if at >= 0:
        (ticks,) = struct.unpack_from(">I", data, clock + 4 + 4 + 8)
        (count,) = struct.unpack_from(">I", data, at + 8)
        place = at + 12 + 12 * (count - 1) + 4
        (start,) = struct.unpack_from(">i", data, place)
        struct.pack_into(">i", data, place, start + round(pictures * ticks / rate))
        path.write_bytes(data)


def set_matrix(path: Path, orientation: int, kind: str = "") -> None:
    """Write the display matrix of an MP4's first track (ISO 14496-12, 8.3.2): an orientation, "zero" or "shear"."""
    mirrored, turns = ORIENTATIONS[orientation]
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][turns]
    a, b, c, d = (cos, sin, -sin, cos)
    if mirrored:
        a, b = -a, -b
    values = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    if kind == "zero":
        values = [0] * 9
    elif kind == "shear":
        values = [1 << 16, 0, 0, 1 << 14, 1 << 16, 0, 0, 0, 1 << 30]
    data = bytearray(path.read_bytes())
    # Type, version and flags, five 32-bit fields, two reserved words, four 16-bit fields.
    start = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    struct.pack_into(">9i", data, start, *values)
    path.write_bytes(data)


def comment_gif(path: Path, text: bytes = b"hello") -> None:
    """Put a comment behind a GIF's last picture (GIF89a, section 24)."""
    data = path.read_bytes()
    assert data.endswith(b";")
    path.write_bytes(data[:-1] + b"\x21\xfe" + bytes([len(text)]) + text + b"\x00;")


def append_garbage(path: Path, draws: random.Random) -> None:
    """Put bytes behind the end."""
    path.write_bytes(path.read_bytes() + draws.randbytes(draws.randint(1, 5000)))
