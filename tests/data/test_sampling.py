"""Frame sampling beyond the golden lists: bounds, randomness, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data import sample_frames
from mote_fast.data.sampling import DENSE_SPAN, train_segment_bounds
from mote_fast.errors import ConfigError


@given(
    frames=st.integers(1, 3000),
    segments=st.integers(1, 64),
    mode=st.sampled_from(["val", "test", "train"]),
    clips=st.integers(1, 10),
    dense=st.booleans(),
)
def test_indices_lie_in_the_video(frames: int, segments: int, mode: Any, clips: int, dense: bool) -> None:
    """For any arguments, the shape is [clips, segments] and every index is a frame of the video."""
    clips = clips if mode == "test" else 1
    indices = sample_frames(frames, segments, mode, clips, dense)
    assert indices.shape == (clips, segments)
    assert indices.dtype == torch.int64
    assert 0 <= int(indices.min()) <= int(indices.max()) < frames


@given(frames=st.integers(1, 500), segments=st.integers(1, 32), seed=st.integers(0, 100))
def test_training_draws_within_the_bounds(frames: int, segments: int, seed: int) -> None:
    """One frame per segment, inside its inclusive bounds, the same for the same generator state."""
    drawn = sample_frames(frames, segments, "train", generator=torch.Generator().manual_seed(seed))
    again = sample_frames(frames, segments, "train", generator=torch.Generator().manual_seed(seed))
    low, high = train_segment_bounds(frames, segments).unbind(1)
    assert torch.equal(drawn, again)
    assert bool(((low <= drawn[0]) & (drawn[0] <= high)).all())


def test_training_reaches_both_ends_of_a_segment() -> None:
    """The draw is uniform over inclusive bounds: in many draws each frame of a segment is about as frequent."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([sample_frames(33, 8, "train", generator=generator) for _ in range(2000)])[:, 0]
    counts = torch.bincount(drawn)
    assert len(counts) == 5
    assert counts.min() > 0.8 * counts.max()


def test_dense_windows() -> None:
    """Dense training starts at any possible frame but the last, as released; validation in the middle of the range."""
    room = 300 - DENSE_SPAN
    generator = torch.Generator().manual_seed(0)
    starts = {int(sample_frames(300, 8, "train", dense=True, generator=generator)[0, 0]) for _ in range(3000)}
    assert (min(starts), max(starts)) == (0, room - 1)
    assert int(sample_frames(DENSE_SPAN + 1, 8, "train", dense=True)[0, 0]) == 0
    assert sample_frames(300, 8, "val", dense=True)[0].tolist() == [room // 2 + 16 * i for i in range(8)]


@given(frames=st.integers(1, 500), segments=st.integers(1, 64), clips=st.integers(2, 10))
def test_dense_clips_of_a_test_are_the_official_ones(frames: int, segments: int, clips: int) -> None:
    """A window of 128 frames, also where the number of frames of a clip does not divide 128."""
    step, stride = max(0, frames - 128) // (clips - 1), 128 // segments
    expected = [[(clip * step + at * stride) % frames for at in range(segments)] for clip in range(clips)]
    assert sample_frames(frames, segments, "test", clips, dense=True).tolist() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8), "num_frames"),
        ((10, 0), "segments"),
        ((10, 8, "test", 0), "clips"),
        ((10, 8, "valid"), "mode"),
        ((10, 8, "train", 2), "several clips"),
    ],
)
def test_bad_arguments_are_named(arguments: Any, message: str) -> None:
    """Out-of-range numbers and unknown modes raise by name."""
    with pytest.raises(ConfigError, match=message):
        sample_frames(*arguments)
