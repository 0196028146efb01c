"""Assigns videos to batches and ranks; the result depends on (seed, epoch, rank) alone."""

from __future__ import annotations

from typing import NamedTuple

import torch

from mote_fast.errors import ConfigError
from mote_fast.runtime.seeding import generator_of, seed_of


class BatchIndices(NamedTuple):
    """One batch of one rank: positions in the epoch's order, and the list indices of the videos there."""

    positions: list[int]
    indices: list[int]


class Replica(NamedTuple):
    """The rank of this process among those that share an epoch."""

    rank: int = 0
    world_size: int = 1


ALONE = Replica()


def training_batches(
    videos: int, batch_size: int, *, seed: int, epoch: int, replica: Replica = ALONE
) -> list[BatchIndices]:
    """Return the training batches of one rank: all are full, and every rank has the same number.

    The epoch's order is a permutation drawn from (seed, epoch). Step s of W ranks with batches of B takes the positions
    s*W*B to (s+1)*W*B - 1, and rank r takes the r-th B of them. In a step, two ranks therefore see the same videos as
    one rank with twice the batch. The remainder at the end is not used in this epoch.

    Raises:
        ConfigError: there are fewer videos than one step takes.
    """
    _check(videos, batch_size, replica)
    step = batch_size * replica.world_size
    if videos < step:
        raise ConfigError(
            f"one step takes {step} videos ({replica.world_size} processes x batch {batch_size}), but the list has "
            f"{videos}: use a smaller batch"
        )
    order = torch.randperm(videos, generator=generator_of(seed, "order", epoch)).tolist()
    starts = range(replica.rank * batch_size, videos // step * step, step)
    return [BatchIndices(list(range(start, start + batch_size)), order[start : start + batch_size]) for start in starts]


def evaluation_batches(videos: int, batch_size: int, *, replica: Replica = ALONE) -> list[BatchIndices]:
    """Return the evaluation batches of one rank; the ranks together take every video once, without padding.

    Rank r of W takes the videos r, r + W, r + 2W, ...; its last batch may be short, and it may have no batch.
    """
    _check(videos, batch_size, replica)
    mine = list(range(replica.rank, videos, replica.world_size))
    parts = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    return [BatchIndices(part, part) for part in parts]


def replacement(videos: int, *, seed: int, epoch: int, position: int, attempt: int) -> int:
    """Return the training stand-in for a video that cannot be read; ``attempt`` counts from 1."""
    return seed_of(seed, "replacement", epoch, position, attempt) % videos


def _check(videos: int, batch_size: int, replica: Replica) -> None:
    if videos < 1 or batch_size < 1:
        raise ConfigError(f"videos and batch_size must be at least 1, got {videos} and {batch_size}")
    if not 0 <= replica.rank < replica.world_size:
        raise ConfigError(f"rank {replica.rank} does not lie in a world of {replica.world_size}")
