"""Random numbers as functions of names and integers, so that a resumed or re-sharded run makes the same draws."""

from __future__ import annotations

import hashlib

import torch


def seed_of(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part and on their order, the same on every machine and version."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator_of(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded with ``seed_of(*parts)``."""
    return torch.Generator().manual_seed(seed_of(*parts))
