"""Small files that take much memory or time to decode."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

_IDENTITY = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def png(width: int, height: int, *, depth: int = 1, color: int = 0) -> bytes:
    """A black picture."""
    size = 1 + (width * depth * {0: 1, 2: 3, 6: 4}[color] + 7) // 8
    # Blocks after a full flush are independent, so one row is packed and repeated. The sum is that of zeros.
    packer = zlib.compressobj(9, wbits=-15)
    row = packer.compress(bytes(size)) + packer.flush(zlib.Z_FULL_FLUSH)
    data = b"\x78\xda" + row * height + b"\x03\x00" + struct.pack(">HH", size * height % 65521, 1)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def repeated_picture(path: Path, picture: bytes, count: int, width: int, height: int, *, duration: int = 0) -> Path:
    """An MP4 of ``count`` samples that are all the same bytes, each of ``duration`` ticks: 0 gives all one time."""
    kind = _box(b"ftyp", b"qt  ", bytes(4), b"qt  ")
    entry = _box(
        b"png ",
        bytes(6),
        struct.pack(">H", 1),
        bytes(16),
        struct.pack(">HHIII", width & 0xFFFF, height & 0xFFFF, 0x480000, 0x480000, 0),
        struct.pack(">H", 1),
        bytes(32),
        struct.pack(">Hh", 24, -1),
    )
    samples = _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), entry),
        _full(b"stts", struct.pack(">III", 1, count, duration)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, 1, 1)),
        _full(b"stsz", struct.pack(">II", len(picture), count)),
        _full(b"stco", struct.pack(">I", count), struct.pack(">I", len(kind) + 8) * count),
    )
    place = _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1)))
    information = _box(b"minf", _full(b"vmhd", bytes(8), flags=1), place, samples)
    media = _box(
        b"mdia",
        _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, 25, 1, 0x55C4, 0)),
        _full(b"hdlr", b"\0\0\0\0vide", bytes(12), b"v\0"),
        information,
    )
    size = struct.pack(">II", (width & 0xFFFF) << 16, (height & 0xFFFF) << 16)
    header = _full(b"tkhd", struct.pack(">IIIII", 0, 0, 1, 0, 1), bytes(16), _IDENTITY, size, flags=3)
    movie_header = _full(
        b"mvhd",
        struct.pack(">IIIIIH", 0, 0, 25, 1, 1 << 16, 256),
        bytes(10),
        _IDENTITY,
        bytes(24),
        struct.pack(">I", 2),
    )
    path.write_bytes(kind + _box(b"mdat", picture) + _box(b"moov", movie_header, _box(b"trak", header, media)))
    return path


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _box(kind: bytes, *parts: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, parts))) + kind + b"".join(parts)


def _full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags), *parts)
