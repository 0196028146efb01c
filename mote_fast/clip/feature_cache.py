"""A cache of class features on disk: a label set is encoded once per model, not once per process."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from mote_fast.runtime.environment import default_cache_folder

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE_NAME = "class_features.sqlite3"
_FILE_NAMES = (FILE_NAME, *(f"{FILE_NAME}-{kind}" for kind in ("journal", "wal", "shm")))
# About 120,000 labels of ViT-B/16.
DEFAULT_MAX_BYTES = 256 * 1024**2
# Seconds to wait for another process's write, which takes milliseconds; computing the features anew takes seconds.
_BUSY_TIMEOUT = 2.0
# Bytes after each stored feature.
_CHECKSUM_BYTES = 8
# SQLite's limit on the variables of one query is 999 in its oldest builds.
_LABELS_PER_QUERY = 500


class FeatureCache:
    """An SQLite file of class features, safe under concurrent processes, bounded in size, removable at any time.

    The key of a feature is its text tower (by the hash of the weights), dtype, templates and label; a checksum shows
    damage to a feature, which is then computed again. When the features exceed ``max_bytes``, the least recently used
    are dropped. A cache that cannot be read or written costs speed and one logged warning, never a result: it is not
    tried again. A damaged file is recreated.

    Args:
        folder: folder of the file; None takes the user's cache folder.
        max_bytes: bound on the stored features, bytes.

    Attributes:
        path: the file itself; None if there is no folder for it, so that nothing is kept.
    """

    def __init__(self, folder: str | Path | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        folder = default_cache_folder() if folder is None else Path(folder)
        self.path = None if folder is None else folder / FILE_NAME
        self.max_bytes = max_bytes
        self._given_up = False

    @staticmethod
    def space(*parts: str) -> str:
        """Hash everything that a feature depends on, except its label, into the name of a space of the cache."""
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(8, "little") + part.encode())
        return digest.hexdigest()

    def read(self, space: str, labels: Sequence[str], embed_dim: int) -> dict[str, Tensor]:
        """Return the features, float32 [embed_dim] each, of the labels that are stored."""
        found = self._attempt("read", lambda path: self._read(path, space, labels, embed_dim), {})
        if found and self.path is not None:
            # The time of use is lost where storing it would wait for another process, or cannot be done.
            with suppress(sqlite3.Error, OSError), _opened(self.path, timeout=0.0) as database:
                for chunk in _chunks(list(found)):
                    query = f"UPDATE features SET used = ? WHERE space = ? AND label IN ({_marks(chunk)})"
                    database.execute(query, (time.time(), space, *chunk))
        return found

    def write(self, space: str, features: Mapping[str, Tensor]) -> None:
        """Store features, float32 [embed_dim] each, by label; then drop the least recently used beyond the bound."""
        now = time.time()
        rows = [(space, label, _packed(space, label, value), now) for label, value in features.items()]
        self._attempt("written", lambda path: self._write(path, rows), None)

    def size(self) -> int:
        """Bytes of stored features and labels."""
        return self._attempt("measured", self._measure, 0)

    def clear(self) -> None:
        """Delete the cache file, and what SQLite keeps beside it."""
        if self.path is not None:
            # A journal that stayed would be applied to the next file.
            for name in _FILE_NAMES:
                self.path.with_name(name).unlink(missing_ok=True)

    def _read(self, path: Path, space: str, labels: Sequence[str], embed_dim: int) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if not path.exists():
            return found
        with _opened(path) as database:
            for chunk in _chunks(labels) if _has_table(database) else ():
                query = f"SELECT label, feature FROM features WHERE space = ? AND label IN ({_marks(chunk)})"
                for label, content in database.execute(query, (space, *chunk)):
                    feature = _unpacked(space, label, content, embed_dim)
                    if feature is not None:
                        found[label] = feature
        return found

    def _write(self, path: Path, rows: Sequence[tuple[str, str, bytes, float]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(path, "rwc") as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS features (space TEXT NOT NULL, label TEXT NOT NULL, "
                "feature BLOB NOT NULL, used REAL NOT NULL, PRIMARY KEY (space, label))"
            )
            database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)", rows)
            excess = _stored_bytes(database) - self.max_bytes
            if excess > 0:
                # Running total of sizes, oldest first: the rows whose total starts below the excess must go.
                database.execute(
                    "DELETE FROM features WHERE rowid IN (SELECT rowid FROM (SELECT rowid, "
                    "LENGTH(feature) + LENGTH(label) AS bytes, "
                    "SUM(LENGTH(feature) + LENGTH(label)) OVER (ORDER BY used, rowid) AS total FROM features) "
                    "WHERE total - bytes < ?)",
                    (excess,),
                )

    def _measure(self, path: Path) -> int:
        if not path.exists():
            return 0
        with _opened(path) as database:
            return _stored_bytes(database) if _has_table(database) else 0

    def _attempt(self, what: str, action: Callable[[Path], T], otherwise: T) -> T:
        """Return the action's result; after a failure warn, return ``otherwise``, and attempt nothing more."""
        if self._given_up:
            return otherwise
        problem = f"class-feature cache {self.path} could not be {what}"
        try:
            if self.path is not None:
                return action(self.path)
            problem = "this user has no home folder and so no cache (set HOME or XDG_CACHE_HOME)"
        except (sqlite3.OperationalError, OSError) as error:
            problem += f" ({error})"
        except sqlite3.DatabaseError as error:
            log.warning("class-feature cache %s is damaged (%s); recreating it", self.path, str(error))
            try:
                self.clear()
            except OSError as cause:
                problem += f" nor removed ({cause})"
            else:
                return otherwise
        self._given_up = True
        log.warning("%s; going on without it: class features are not kept", problem)
        return otherwise


@contextmanager
def _opened(path: Path, mode: str = "rw", timeout: float | None = None) -> Iterator[sqlite3.Connection]:
    """Open the file for one transaction; SQLite opens a file that is write-protected for reading."""
    name = f"{path.absolute().as_uri()}?mode={mode}"
    with (
        closing(sqlite3.connect(name, timeout=_BUSY_TIMEOUT if timeout is None else timeout, uri=True)) as database,
        database,
    ):
        yield database


def _has_table(database: sqlite3.Connection) -> bool:
    # A process that was killed, or a full disk, leaves an empty file.
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'features'"
    return database.execute(query).fetchone() is not None


def _stored_bytes(database: sqlite3.Connection) -> int:
    query = "SELECT COALESCE(SUM(LENGTH(feature) + LENGTH(label)), 0) FROM features"
    return database.execute(query).fetchone()[0]


def _packed(space: str, label: str, feature: Tensor) -> bytes:
    content = feature.float().numpy().tobytes()
    return content + _checksum(space, label, content)


def _unpacked(space: str, label: str, content: object, embed_dim: int) -> Tensor | None:
    """Return a stored feature, or None if it is damaged or of another width."""
    if not isinstance(content, bytes) or len(content) != 4 * embed_dim + _CHECKSUM_BYTES:
        return None
    values = content[:-_CHECKSUM_BYTES]
    if content[-_CHECKSUM_BYTES:] != _checksum(space, label, values):
        log.warning("the cached feature of class %r is damaged; it is computed again", label)
        return None
    return torch.frombuffer(bytearray(values), dtype=torch.float32)


def _checksum(space: str, label: str, content: bytes) -> bytes:
    # SQLite does not notice damage inside a row.
    return hashlib.blake2b(f"{space}\n{label}\n".encode() + content, digest_size=_CHECKSUM_BYTES).digest()


def _chunks(labels: Sequence[str]) -> Iterator[Sequence[str]]:
    return (labels[start : start + _LABELS_PER_QUERY] for start in range(0, len(labels), _LABELS_PER_QUERY))


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))
