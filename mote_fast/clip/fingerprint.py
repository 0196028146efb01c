"""Hashes of weights: the keys of results that are cached on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

# Bytes of weights that one thread hashes at a time.
HASHED_AT_ONCE = 1 << 22

# Changes when a tensor is replaced or modified in place.
WeightsFingerprint = tuple[tuple[int, int, torch.dtype], ...]


def weights_fingerprint(state: Mapping[str, Tensor]) -> WeightsFingerprint:
    """Return the address of each tensor and how often it was modified in place."""
    return tuple((value.data_ptr(), value._version, value.dtype) for value in state.values())


class Fingerprint:
    """The SHA-256 of a configuration and of weights, computed again only when the weights changed."""

    def __init__(self) -> None:
        self._known: tuple[WeightsFingerprint, str] | None = None

    def of(self, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
        """Return the hash, hexadecimal; ``config`` is the same at every call."""
        stamp = weights_fingerprint(state)
        if self._known is None or self._known[0] != stamp:
            shapes = [(name, value.dtype, list(value.shape)) for name, value in state.items()]
            digest = hashlib.sha256(repr((sorted(config.items()), shapes)).encode())
            # Hashing releases the GIL; pieces spread the largest tensors over threads too.
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                for piece in pool.map(_hash_piece, (piece for value in state.values() for piece in _pieces(value))):
                    digest.update(piece)
            self._known = (stamp, digest.hexdigest())
        return self._known[1]


def _pieces(value: Tensor) -> Sequence[Tensor]:
    """Return the bytes of a tensor, uint8, in pieces of ``HASHED_AT_ONCE``."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).split(HASHED_AT_ONCE)


def _hash_piece(piece: Tensor) -> bytes:
    return hashlib.sha256(piece.numpy().data).digest()
