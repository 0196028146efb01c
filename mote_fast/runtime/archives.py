"""Zip archives of PyTorch, read without believing what they say about sizes.

Everything that a directory states is compared with the file before memory is taken for it: members lie one after
another inside the file, none has the name of another, and tensors are not compressed. What is read is therefore never
larger than the file.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mote_fast.errors import one_line, quoted
from mote_fast.runtime.reading import open_regular

# Bytes of the directory; the largest checkpoints have some thousand members of about a hundred bytes.
_MAX_DIRECTORY = 2**23

# Bytes, as zip's format has them: of a member's own header, before its name and extra fields.
_HEADER = struct.Struct("<4s22xHH")
_HEADER_MARK = b"PK\x03\x04"
_ENCRYPTED = 0x1

# Exceptions of zipfile and zlib for damaged archives.
_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, EOFError, RuntimeError, OverflowError)


class _Member(NamedTuple):
    info: zipfile.ZipInfo
    start: int


class Archive:
    """A zip file that is open for reading; a context manager.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read, or is no regular file.
        ValueError: it is no zip file, is damaged, or states what cannot be.
    """

    def __init__(self, path: Path) -> None:
        self._file = _Bounded(open_regular(path))
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._members = self._checked()
        except BaseException as error:
            self._file.close()
            if isinstance(error, _ERRORS):
                raise ValueError(one_line(error)) from error
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> list[str]:
        """The names of the members, in the directory's order."""
        return list(self._members)

    def size(self, name: str) -> int:
        """The size of a member, bytes, unpacked; for a compressed one this is what the directory says."""
        return self._member(name).info.file_size

    def read(self, name: str, limit: int) -> bytes:
        """Return a member of at most ``limit`` bytes, which may be compressed.

        Raises:
            ValueError: there is no such member, or it is larger or damaged.
        """
        info = self._member(name).info
        if info.file_size <= limit:
            try:
                with self._zip.open(info) as member:
                    return member.read(limit)
            except _ERRORS as error:
                raise ValueError(f"its {quoted(name)} is damaged ({one_line(error)})") from error
        raise ValueError(f"its {quoted(name)} is larger than {limit} bytes")

    def tensor(self, name: str, dtype: torch.dtype, length: int) -> Tensor:
        """Read a member as numbers, [length].

        Raises:
            ValueError: there is no such member, it has another size, is compressed, or its checksum does not fit.
        """
        info, start = self._member(name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its {quoted(name)} is compressed, which PyTorch's tensors are not")
        if info.file_size != length * dtype.itemsize:
            raise ValueError(f"its {quoted(name)} has {info.file_size} bytes, its data.pkl says {length} of {dtype}")
        numbers = torch.empty(length, dtype=dtype)
        array: Any = numbers.view(torch.uint8).numpy() if length else b""
        content = memoryview(array)
        self._file.seek(start)
        if length and self._file.readinto(content) != len(content):
            raise ValueError(f"its {quoted(name)} is cut off")
        # PyTorch can be told to leave the checksums out.
        if info.CRC and zlib.crc32(content) != info.CRC:
            raise ValueError(f"its {quoted(name)} is damaged: the checksum does not fit")
        return numbers

    def _member(self, name: str) -> _Member:
        try:
            return self._members[name]
        except KeyError:
            raise ValueError(f"it has no {quoted(name)}") from None

    def _checked(self) -> dict[str, _Member]:
        """The members by name; raises ValueError unless each has its own part of the file."""
        members: dict[str, _Member] = {}
        end = 0
        for info in sorted(self._zip.infolist(), key=lambda info: info.header_offset):
            if info.filename in members:
                raise ValueError(f"it has {quoted(info.filename)} twice")
            if info.flag_bits & _ENCRYPTED:
                raise ValueError(f"its {quoted(info.filename)} is encrypted")
            if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
                raise ValueError(f"the sizes of its {quoted(info.filename)} contradict one another")
            if info.header_offset < end:
                raise ValueError(f"its {quoted(info.filename)} overlaps another member")
            self._file.seek(info.header_offset)
            mark, name, extra = _HEADER.unpack(self._file.read(_HEADER.size).ljust(_HEADER.size))
            start = info.header_offset + _HEADER.size + name + extra
            end = start + info.compress_size
            if mark != _HEADER_MARK or end > self._zip.start_dir:
                raise ValueError(f"its {quoted(info.filename)} does not lie where the directory says")
            members[info.filename] = _Member(info, start)
        return {info.filename: members[info.filename] for info in self._zip.infolist()}


class _Bounded(io.BufferedReader):
    """Reads at most a directory's size at once, since zipfile reads as much as the file says."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        if min(left, left if size is None or size < 0 else size) > _MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"a directory of over {_MAX_DIRECTORY} bytes")
        return super().read(size)
