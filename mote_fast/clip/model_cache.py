"""A cache of quantised towers on disk: a model is exported once per machine, not once per process."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mote_fast.clip import feature_cache
from mote_fast.errors import MoteError
from mote_fast.runtime.files import staged
from mote_fast.runtime.parts import remove_abandoned
from mote_fast.runtime.reading import read_small

log = logging.getLogger(__name__)

# About 20 towers of ViT-B/16, or 6 of ViT-L/14.
DEFAULT_MAX_BYTES = 2 * 1024**3
# ONNX files are protocol buffers, which have no more.
MAX_FILE_BYTES = 2**31


class ModelCache:
    """A folder of exported towers, safe under concurrent processes, bounded in size, removable at any time.

    A file's name holds its key and the SHA-256 of key and content: a file that is damaged, or was stored under another
    key, is recognised before use, logged, and removed. When the files exceed ``max_bytes``, the least recently used are
    dropped. A cache that cannot be read or written costs time and a logged warning, never a result.

    Args:
        folder: folder of the files; None takes the folder "int8" in the user's cache folder.
        max_bytes: bound on the files, bytes; the newest file is kept regardless of its size.
    """

    def __init__(self, folder: str | Path | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        caches = feature_cache.default_cache_folder() if folder is None else None
        # None if the user has no home folder: nothing is kept.
        self.folder = Path(folder) if folder is not None else None if caches is None else caches / "int8"
        self.max_bytes = max_bytes

    def read(self, key: str) -> bytes | None:
        """Return the content stored under ``key`` (hexadecimal), or None."""
        with self._tolerant("read"):
            for path in sorted(self._stored(f"{key}-*.onnx")):
                content = _read_whole(key, path)
                if content is not None:
                    return content
        return None

    def write(self, key: str, content: bytes) -> None:
        """Store ``content`` under ``key`` atomically; then drop the least recently used files beyond the bound."""
        if self.folder is None:
            log.warning("this user has no home folder and so no cache of int8 towers (set HOME or XDG_CACHE_HOME)")
            return
        with self._tolerant("written"):
            target = self.folder / f"{key}-{_digest(key, content)}.onnx"
            with staged(target) as part:
                part.write_bytes(content)
            self._prune(self.folder, target)

    def size(self) -> int:
        """Bytes of the stored files."""
        return sum(size for _, size, _ in self._files())

    def clear(self) -> None:
        """Delete the stored files."""
        for _, _, path in self._files():
            path.unlink(missing_ok=True)

    def _stored(self, pattern: str = "*.onnx") -> list[Path]:
        return [] if self.folder is None else list(self.folder.glob(pattern))

    def _prune(self, folder: Path, newest: Path) -> None:
        remove_abandoned(folder)
        excess = self.size() - self.max_bytes
        for _, size, path in sorted(self._files()):
            if excess <= 0:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                excess -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        """Time of last use, bytes and path of each file; another process may remove files at any time."""
        found = []
        for path in self._stored():
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return found

    @contextmanager
    def _tolerant(self, attempt: str) -> Iterator[None]:
        """Log cache failures and end the block: the cache is optional."""
        try:
            yield
        except (OSError, MoteError) as error:
            log.warning("cache of int8 towers %s could not be %s: %s", self.folder, attempt, str(error))


def _read_whole(key: str, path: Path) -> bytes | None:
    """Return the content of a file that was stored under ``key``, or None after a warning."""
    try:
        content = read_small(path, MAX_FILE_BYTES)
    except FileNotFoundError:
        # Another process dropped it.
        return None
    except OSError as error:
        log.warning("%s cannot be read (%s); the tower is exported again", path, str(error))
        return None
    whole = path.stem == f"{key}-{_digest(key, content)}"
    if not whole:
        log.warning("%s is damaged, or was made for another model or machine; the tower is exported again", path)
    # The folder may be read-only.
    with suppress(OSError):
        os.utime(path) if whole else path.unlink(missing_ok=True)
    return content if whole else None


def _digest(key: str, content: bytes) -> str:
    return hashlib.sha256(key.encode() + b"\n" + content).hexdigest()
