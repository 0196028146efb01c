"""Sets of ids that take twelve bytes each: which ids are new, and which one is given twice.

Two different ids have the same digest once in 10^15 collections of ten million ids.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np

BYTES = 12


def id_of_path(path: str) -> str:
    """Return the id of a video that has none: the hash of its path, 32 hexadecimal digits."""
    return hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest()


def digests_of(ids: Iterable[str]) -> bytes:
    """Return the digests of ids, one after another."""
    return b"".join(hashlib.blake2b(name.encode(), digest_size=BYTES).digest() for name in ids)


class IdSet:
    """Ids that are added, and then looked up."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._sorted: np.ndarray | None = None
        self._seen: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._bytes) // BYTES

    def add(self, digests: bytes) -> None:
        """Add ids, before the first look-up."""
        self._bytes += digests

    def repeated(self) -> set[bytes]:
        """Return digests of ids that were added more than once; a few of them."""
        own = self._order()
        places = np.flatnonzero(own[1:] == own[:-1])[:16]
        # NumPy's strings lose zeros at their ends.
        return {bytes(own[at]).ljust(BYTES, b"\0") for at in places}

    def known(self, digests: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Look ids up.

        Args:
            digests: of N ids.

        Returns:
            bool [N], which ids the set has; and bool [N], which of these an earlier look-up or place had already.
        """
        own, wanted = self._order(), np.ndarray(len(digests) // BYTES, f"S{BYTES}", digests)
        if self._seen is None:
            self._seen = np.zeros(len(own), bool)
        places = np.minimum(np.searchsorted(own, wanted), max(len(own) - 1, 0))
        found = own[places] == wanted if len(own) else np.zeros(len(wanted), bool)
        again = np.zeros(len(wanted), bool)
        for at in np.flatnonzero(found):
            again[at] = self._seen[places[at]]
            self._seen[places[at]] = True
        return found, again

    def _order(self) -> np.ndarray:
        if self._sorted is None:
            # In place: a copy would double the memory.
            self._sorted = np.ndarray(len(self), f"S{BYTES}", self._bytes)
            self._sorted.sort()
        return self._sorted


def places_of(ids: Sequence[str], wanted: set[bytes]) -> list[int]:
    """Return the places of ids whose digests are wanted."""
    return [at for at, name in enumerate(ids) if digests_of([name]) in wanted]
