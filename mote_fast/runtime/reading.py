"""Opening files of strangers: regular ones only, small ones whole, and none outside the folder that is read.

A FIFO in place of a file would make a reader wait for ever, a device would fill the memory, and a link would show
another file of the user.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from io import FileIO
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path that the user named, with the home folder in place of a leading "~" unless "~" itself exists."""
    found = Path(path)
    if found.parts[:1] and found.parts[0].startswith("~") and not found.exists():
        # A user without a home folder keeps the path as it is.
        with suppress(RuntimeError):
            return found.expanduser()
    return found


def open_regular(path: str | os.PathLike[str]) -> FileIO:
    """Open a regular file for reading, unbuffered; nothing else is waited for.

    Raises:
        OSError: the file cannot be opened, or is a folder, a FIFO or a device.
    """
    # Without O_NONBLOCK, opening a FIFO waits for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"not a file name ({error})") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return FileIO(descriptor, "rb")


def check_regular(path: str | os.PathLike[str]) -> None:
    """Check that a path names a regular file that can be read, before a library opens it by name.

    Raises:
        OSError: see ``open_regular``.
    """
    open_regular(path).close()


def read_small(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: see ``open_regular``; or the file is larger.
    """
    with open_regular(path) as file:
        # The kernel's own files tell no size.
        if os.fstat(descriptor := file.fileno()).st_size <= limit:
            content = bytearray()
            while (more := os.read(descriptor, min(limit + 1 - len(content), 2**20))) and len(content) <= limit:
                content += more
            if len(content) <= limit:
                return bytes(content)
    raise OSError(errno.EFBIG, f"larger than {limit} bytes, the most that such a file may have")


def check_inside(path: Path, folder: Path) -> None:
    """Check that a file lies in ``folder`` also where its links lead, or in the hub cache's store beside it.

    The cache of huggingface_hub has links in ``snapshots/REVISION`` and its folders to files in ``blobs``, one pair of
    folders for each repository.

    Raises:
        OSError: it lies elsewhere, or the links are circular.
    """
    try:
        target, place = path.resolve(), folder.resolve()
    except (RuntimeError, ValueError) as error:
        raise OSError(errno.ELOOP, f"cannot be followed ({error})") from error
    stores = [each.parents[1] / "blobs" for each in (place, place.parent) if each.parent.name == "snapshots"]
    allowed = [place, *stores]
    if not any(target.is_relative_to(each) for each in allowed):
        raise OSError(errno.EINVAL, "a link that leads out of its folder; copy the file in its place")
