"""A cache of class features on disk: a label set is encoded once per model, not once per process."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

log = logging.getLogger(__name__)

FILE_NAME = "class_features.sqlite3"
# About 120,000 labels of ViT-B/16.
DEFAULT_MAX_BYTES = 256 * 1024**2
# Seconds to wait for another process's write.
_BUSY_TIMEOUT = 30.0
# SQLite's limit on the variables of one query is 999 in its oldest builds.
_LABELS_PER_QUERY = 500


def default_cache_folder() -> Path:
    """The library's folder among the user's caches."""
    return platformdirs.user_cache_path("mote_fast")


class FeatureCache:
    """An SQLite file of class features, safe under concurrent processes, bounded in size, removable at any time.

    The key of a feature is its text tower (by the hash of the weights), dtype, templates and label. When the features
    exceed ``max_bytes``, the least recently used are dropped. A cache that cannot be read or written costs speed and a
    logged warning, never a result; a damaged file is moved aside and recreated.

    Args:
        folder: folder of the file; None takes the user's cache folder.
        max_bytes: bound on the stored features, bytes.
    """

    def __init__(self, folder: str | Path | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.folder = default_cache_folder() if folder is None else Path(folder)
        self.max_bytes = max_bytes

    @property
    def path(self) -> Path:
        """The file itself."""
        return self.folder / FILE_NAME

    @staticmethod
    def space(*parts: str) -> str:
        """Hash everything that a feature depends on, except its label, into the name of a space of the cache."""
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(8, "little") + part.encode())
        return digest.hexdigest()

    def read(self, space: str, labels: Sequence[str], embed_dim: int) -> dict[str, Tensor]:
        """Return the features, float32 [embed_dim] each, of the labels that are stored."""
        found: dict[str, Tensor] = {}
        if not self.path.exists():
            return found
        with self._tolerant("read"), self._open() as database:
            for chunk in _chunks(labels, _LABELS_PER_QUERY):
                marks = ",".join("?" * len(chunk))
                query = f"SELECT label, feature FROM features WHERE space = ? AND label IN ({marks})"
                for label, blob in database.execute(query, (space, *chunk)):
                    if len(blob) == 4 * embed_dim:
                        found[label] = torch.frombuffer(bytearray(blob), dtype=torch.float32)
                database.execute(
                    f"UPDATE features SET used = ? WHERE space = ? AND label IN ({marks})", (time.time(), space, *chunk)
                )
        return found

    def write(self, space: str, features: Mapping[str, Tensor]) -> None:
        """Store features, float32 [embed_dim] each, by label; then drop the least recently used beyond the bound."""
        now = time.time()
        rows = [(space, label, value.float().numpy().tobytes(), now) for label, value in features.items()]
        with self._tolerant("written"), self._open() as database:
            database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)", rows)
            excess = self._size(database) - self.max_bytes
            if excess > 0:
                # Running total of sizes, oldest first: the rows whose total starts below the excess must go.
                database.execute(
                    "DELETE FROM features WHERE rowid IN (SELECT rowid FROM (SELECT rowid, "
                    "LENGTH(feature) + LENGTH(label) AS bytes, "
                    "SUM(LENGTH(feature) + LENGTH(label)) OVER (ORDER BY used, rowid) AS total FROM features) "
                    "WHERE total - bytes < ?)",
                    (excess,),
                )

    def size(self) -> int:
        """Bytes of stored features and labels."""
        if not self.path.exists():
            return 0
        total = 0
        with self._tolerant("measured"), self._open() as database:
            total = self._size(database)
        return total

    def clear(self) -> None:
        """Delete the cache file."""
        self.path.unlink(missing_ok=True)

    @staticmethod
    def _size(database: sqlite3.Connection) -> int:
        query = "SELECT COALESCE(SUM(LENGTH(feature) + LENGTH(label)), 0) FROM features"
        return database.execute(query).fetchone()[0]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction; create it if it is missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT)) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS features (space TEXT NOT NULL, label TEXT NOT NULL, "
                "feature BLOB NOT NULL, used REAL NOT NULL, PRIMARY KEY (space, label))"
            )
            yield database

    @contextmanager
    def _tolerant(self, attempt: str) -> Iterator[None]:
        """Log cache failures and end the block: the cache is optional."""
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            log.warning("class-feature cache %s could not be %s: %s", self.path, attempt, error)
        except sqlite3.DatabaseError as error:
            log.warning("class-feature cache %s is damaged (%s); recreating it", self.path, error)
            self.path.unlink(missing_ok=True)


def _chunks(labels: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (labels[start : start + size] for start in range(0, len(labels), size))
