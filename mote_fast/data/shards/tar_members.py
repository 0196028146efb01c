"""Members of a tar file, read strictly: plain files under plain names, whose data lie in the file."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_PLAIN_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_OTHER_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a pipe",
}
# Headers that extend the next one by a longer name, another size or a time: only a member's own header counts.
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass(frozen=True)
class Member:
    """A member of an open tar file.

    Attributes:
        name: as its header has it.
        size: bytes, which lie in the file.
        fault: why it must not be used; empty for a plain file with a plain name.
    """

    name: str
    size: int
    fault: str
    _file: BinaryIO
    _start: int

    def read(self) -> bytes:
        """Return the content.

        Raises:
            OSError: the file cannot be read, or was cut off meanwhile.
        """
        self._file.seek(self._start)
        content = self._file.read(self.size)
        if len(content) < self.size:
            raise OSError(f"it ends within {self.name}")
        return content


def read_members(file: BinaryIO) -> Iterator[Member]:
    """Yield the members of an uncompressed tar file in order; their data are not read.

    Nothing is extracted, and a member's name opens no file. Links, devices, folders, sparse files and names with a
    folder are yielded with a fault.

    Raises:
        tarfile.TarError: a header is damaged, or states more data than the file has; there is no next member then.
        OSError: the file cannot be read.
    """
    end = os.fstat(file.fileno()).st_size
    at = 0
    while True:
        file.seek(at)
        block = file.read(tarfile.BLOCKSIZE)
        if block == bytes(tarfile.BLOCKSIZE):
            return
        if not block:
            raise tarfile.ReadError("it ends without the mark of its end")
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        at += tarfile.BLOCKSIZE
        # As tarfile does: the size of a link, folder or device has no data after it.
        size = 0 if header.type in _OTHER_KINDS else header.size
        if not 0 <= size <= end - at:
            raise tarfile.ReadError(f"it ends before {size} bytes of {header.name!r}")
        if header.type not in _EXTENSIONS:
            yield Member(header.name, size, _fault(header), file, at)
        at += -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _fault(header: tarfile.TarInfo) -> str:
    if header.type not in _PLAIN_FILES:
        return f"is {_OTHER_KINDS.get(header.type, f'of type {header.type!r}')}, not a plain file"
    if "/" in header.name or "\\" in header.name:
        return "has a name that is a path"
    return ""
