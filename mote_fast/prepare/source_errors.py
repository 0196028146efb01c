"""Errors of the videos that a preparation reads: each names its video, whatever library raised it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mote_fast.errors import MoteError, UndecodableVideoError, one_line
from mote_fast.runtime.reading import open_regular

_CHANGED = "changed while the command ran; run it again, with an empty output folder"


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn every error of the block that is not the library's into one of the video at ``path``.

    Raises:
        UndecodableVideoError: an unexpected error of a decoder library or of the disk; it must not end the work on
            other videos.
    """
    try:
        yield
    except MoteError:
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise UndecodableVideoError(os.fspath(path), f"cannot be read ({type(error).__name__}: {reason})") from error


class SourceFile(io.RawIOBase):
    """A video file, for reading from its start, whose errors are the video's; a context manager.

    Args:
        path: path of the file.
        state: its size and modification time when the work was planned, as ``file_state`` returns them.

    Raises:
        UndecodableVideoError: the file cannot be opened or read, or has changed.
    """

    def __init__(self, path: str, state: Mapping[str, int]) -> None:
        super().__init__()
        self._path = path
        self._left = state["size"]
        with reading(path):
            self._file = open_regular(path)
            status = os.fstat(self._file.fileno())
        if state != {"size": status.st_size, "mtime_ns": status.st_mtime_ns}:
            self._file.close()
            raise UndecodableVideoError(path, _CHANGED)

    def readable(self) -> bool:
        """True: the file is open for reading."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return the next ``size`` bytes, fewer at the end only."""
        wanted = self._left if size < 0 else min(size, self._left)
        content = bytearray()
        while len(content) < wanted:
            with reading(self._path):
                chunk = self._file.read(wanted - len(content))
            if not chunk:
                raise UndecodableVideoError(self._path, _CHANGED)
            content += chunk
        self._left -= len(content)
        return bytes(content)

    def close(self) -> None:
        """Close the file."""
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()
