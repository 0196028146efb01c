"""The assignment of videos to batches: every rank, step and resumed run must agree on it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data.loading.order import Replica, evaluation_batches, replacement, training_batches
from mote_fast.errors import ConfigError

Sizes = {"videos": st.integers(1, 60), "batch_size": st.integers(1, 7), "world_size": st.integers(1, 4)}


@given(**Sizes)
def test_evaluation_sees_every_video_once(videos: int, batch_size: int, world_size: int) -> None:
    """Without padding, also where the ranks' shares differ; a duplicate would count twice in the accuracy."""
    ranks = [evaluation_batches(videos, batch_size, replica=Replica(rank, world_size)) for rank in range(world_size)]
    batches = list(itertools.chain(*ranks))
    assert sorted(index for batch in batches for index in batch.indices) == list(range(videos))
    assert all(1 <= len(batch.indices) <= batch_size for batch in batches)
    assert all(batch.positions == batch.indices for batch in batches)


@given(**Sizes, seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_training_batches_are_full_and_distinct(
    videos: int, batch_size: int, world_size: int, seed: int, epoch: int
) -> None:
    """All ranks have the same number, or one would wait forever; no video repeats; few are left out."""
    step = batch_size * world_size
    if videos < step:
        with pytest.raises(ConfigError, match=f"{step} videos"):
            training_batches(videos, batch_size, seed=seed, epoch=epoch, replica=Replica(0, world_size))
        return
    ranks = [
        training_batches(videos, batch_size, seed=seed, epoch=epoch, replica=Replica(rank, world_size))
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {videos // step}
    slots = [batch for batches in ranks for batch in batches]
    assert all(len(batch.indices) == len(batch.positions) == batch_size for batch in slots)
    positions = sorted(position for batch in slots for position in batch.positions)
    assert positions == list(range(videos // step * step))
    indices = [index for batch in slots for index in batch.indices]
    assert len(set(indices)) == len(indices)
    assert set(indices) <= set(range(videos))


@given(videos=st.integers(12, 60), batch_size=st.integers(1, 3), world_size=st.integers(2, 4), epoch=st.integers(0, 3))
def test_ranks_together_step_like_one(videos: int, batch_size: int, world_size: int, epoch: int) -> None:
    """W ranks with batches of B see in each step the videos of one rank with W * B, on any machine."""
    whole = training_batches(videos, batch_size * world_size, seed=3, epoch=epoch)
    ranks = [
        training_batches(videos, batch_size, seed=3, epoch=epoch, replica=Replica(rank, world_size))
        for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        assert batch.indices == [index for batches in ranks for index in batches[step].indices]
        assert batch.positions == [position for batches in ranks for position in batches[step].positions]


def test_order_follows_seed_and_epoch() -> None:
    """The same arguments give the same order, others another; no epoch of another seed repeats an order."""
    orders = {
        (seed, epoch): training_batches(50, 50, seed=seed, epoch=epoch)[0].indices
        for seed in range(3)
        for epoch in range(3)
    }
    assert len({tuple(order) for order in orders.values()}) == 9
    assert all(
        training_batches(50, 50, seed=seed, epoch=epoch)[0].indices == orders[seed, epoch] for seed, epoch in orders
    )
    assert list(range(50)) not in orders.values()


@given(videos=st.integers(1, 1000), seed=st.integers(0, 9), epoch=st.integers(0, 9), position=st.integers(0, 999))
def test_stand_ins_are_videos(videos: int, seed: int, epoch: int, position: int) -> None:
    """Stand-ins are in the list, reproducible, and spread: 30 attempts over many videos give many."""
    drawn = [
        replacement(videos, seed=seed, epoch=epoch, position=position, attempt=attempt) for attempt in range(1, 31)
    ]
    assert all(0 <= index < videos for index in drawn)
    assert drawn[4] == replacement(videos, seed=seed, epoch=epoch, position=position, attempt=5)
    assert len(set(drawn)) > min(videos, 30) // 3


@pytest.mark.parametrize(
    ("videos", "batch_size", "replica"),
    [(0, 1, Replica()), (5, 0, Replica()), (5, 1, Replica(2, 2)), (5, 1, Replica(-1, 2))],
)
def test_impossible_sizes_are_refused(videos: int, batch_size: int, replica: Replica) -> None:
    """An empty list, or a rank outside its world."""
    with pytest.raises(ConfigError):
        evaluation_batches(videos, batch_size, replica=replica)
    with pytest.raises(ConfigError):
        training_batches(videos, batch_size, seed=0, epoch=0, replica=replica)
