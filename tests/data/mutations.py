"""Structure-aware damage to video files: MP4 boxes, EBML elements of Matroska, RIFF chunks of AVI.

A container is a tree of parts, each with a name, a size and a body. Parts are dropped, repeated, exchanged and renamed,
sizes and fields are replaced by extreme numbers, and the file is written again, with or without the sizes of the parts
around put right: damage that a reader notices at once reaches little of its code.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_EXTREMES = (0, 1, 2, 3, 7, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@dataclass
class Part:
    """A part of a container; ``head`` are the bytes of its name and whatever else precedes its size or body."""

    name: bytes
    body: bytes = b""
    children: list[Part] = field(default_factory=list)
    # What a container has before its parts, such as the version of an MP4 box or the kind of a RIFF list.
    prefix: bytes = b""
    size: int | None = None

    def stated(self, size: int) -> int:
        """The size that the file states for a part of this size."""
        return size if self.size is None else self.size

    def everything(self) -> Iterator[Part]:
        yield self
        for child in self.children:
            yield from child.everything()


class Grammar(NamedTuple):
    """How a container is read, and how one part is written, given its body."""

    parse: Callable[[bytes], list[Part]]
    wrap: Callable[[Part, bytes], bytes]

    def write(self, parts: list[Part]) -> bytes:
        """Write the parts one after another."""
        out = []
        for part in parts:
            body = part.prefix + (self.write(part.children) if part.children else part.body)
            out.append(self.wrap(part, body))
        return b"".join(out)


_BOXES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta", b"moof", b"traf", b"mvex"})


def _parse_boxes(data: bytes) -> list[Part]:
    parts, at = [], 0
    while at + 8 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + size if size >= 8 else len(data)
        body = data[at + 8 : end]
        parts.append(Part(name, children=_parse_boxes(body)) if name in _BOXES else Part(name, body))
        at = end
    return parts


def _wrap_box(part: Part, body: bytes) -> bytes:
    return (part.stated(8 + len(body)) & 0xFFFFFFFF).to_bytes(4, "big") + part.name[:4].ljust(4) + body


_LISTS = (b"RIFF", b"LIST")


def _parse_chunks(data: bytes) -> list[Part]:
    parts, at = [], 0
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + size]
        if name in _LISTS and len(body) >= 4:
            parts.append(Part(name, children=_parse_chunks(body[4:]), prefix=body[:4]))
        else:
            parts.append(Part(name, body))
        at += 8 + size + size % 2
    return parts


def _wrap_chunk(part: Part, body: bytes) -> bytes:
    size = (part.stated(len(body)) & 0xFFFFFFFF).to_bytes(4, "little")
    return part.name[:4].ljust(4) + size + body + b"\0" * (len(body) % 2)


# Segment, SeekHead, Info, Tracks, TrackEntry, Video, Cluster, BlockGroup, Cues, CuePoint, CueTrackPositions.
_MASTERS = frozenset(
    bytes.fromhex(name)
    for name in ["18538067", "114d9b74", "1549a966", "1654ae6b", "ae", "e0", "1f43b675", "a0", "1c53bb6b", "bb", "b7"]
)


def _vint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, without the marker of its length, and its length; -1 for an unknown size."""
    first = data[at]
    length = 9 - first.bit_length() if first else 8
    ones = (1 << 7 * length) - 1
    value = int.from_bytes(data[at : at + length], "big") & ones
    return -1 if value == ones else value, length


def _parse_elements(data: bytes) -> list[Part]:
    parts, at = [], 0
    while at < len(data):
        _, length = _vint(data, at)
        name = data[at : at + length]
        at += length
        if at >= len(data):
            break
        size, length = _vint(data, at)
        at += length
        end = len(data) if size < 0 else min(len(data), at + size)
        body = data[at:end]
        parts.append(Part(name, children=_parse_elements(body)) if name in _MASTERS else Part(name, body))
        at = end
    return parts


def _wrap_element(part: Part, body: bytes) -> bytes:
    return part.name + b"\x01" + (part.stated(len(body)) & (1 << 56) - 1).to_bytes(7, "big") + body


GRAMMARS = {
    "mp4": Grammar(_parse_boxes, _wrap_box),
    "avi": Grammar(_parse_chunks, _wrap_chunk),
    "mkv": Grammar(_parse_elements, _wrap_element),
}


def mutate(data: bytes, grammar: Grammar, choice: random.Random) -> bytes:
    """Damage a file in one to four places."""
    parts = grammar.parse(data)
    for _ in range(choice.randint(1, 4)):
        every = [part for root in parts for part in root.everything()]
        _damage(choice.choice(every), every, parts, choice)
    out = grammar.write(parts)
    if choice.random() < 0.2:
        out = out[: choice.randrange(1, len(out) + 1)]
    return out


def _damage(part: Part, every: list[Part], roots: list[Part], choice: random.Random) -> None:
    siblings = next((other.children for other in every if any(part is child for child in other.children)), roots)
    kind = choice.choice(("field", "field", "field", "bytes", "size", "drop", "repeat", "rename", "swap", "nest"))
    if kind == "field" and part.body:
        width = choice.choice((1, 2, 4, 8))
        at = choice.randrange(min(len(part.body), 200))
        number = choice.choice(_EXTREMES) if choice.random() < 0.7 else choice.getrandbits(8 * width)
        value = (number & (1 << 8 * width) - 1).to_bytes(width, choice.choice(("big", "little")))
        part.body = part.body[:at] + value + part.body[at + width :]
    elif kind == "bytes" and part.body:
        body = bytearray(part.body)
        for _ in range(choice.randint(1, 8)):
            body[choice.randrange(len(body))] = choice.randrange(256)
        part.body = bytes(body)
    elif kind == "size":
        part.size = choice.choice(_EXTREMES)
    elif kind == "drop" and len(siblings) > 1:
        siblings[:] = [sibling for sibling in siblings if sibling is not part]
    elif kind == "repeat":
        siblings.extend([part] * choice.choice((1, 2, 50)))
    elif kind == "rename":
        part.name = choice.choice(every).name
    elif kind == "swap":
        choice.shuffle(siblings)
    elif kind == "nest" and not part.children:
        part.children = [Part(other.name, other.body) for other in choice.sample(every, min(3, len(every)))]
