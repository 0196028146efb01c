"""Frames that repeat are encoded once, and every frame has its own feature."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mote_fast import VideoClassifier
from mote_fast.data import read_frames
from mote_fast.model.distinct_frames import FrameCounts, distinct_frames
from tests.tolerances import assert_close

LABELS = ["archery", "juggling balls", "playing the cello"]


def palette(size: int, dtype: torch.dtype) -> Tensor:
    """Frames with traps: two mirrored ones, whose sums agree, zeros of both signs, and NaN."""
    frames = (100 * torch.rand(6, 3, size, size, generator=torch.Generator().manual_seed(0))).to(dtype)
    frames[1] = frames[0].flip(-1)
    frames[2] = 0
    if dtype.is_floating_point:
        frames[3] = -0.0
        frames[4, 0, 0, 0] = float("nan")
    return frames


@given(
    drawn=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    size=st.sampled_from([2, 3]),
    dtype=st.sampled_from([torch.uint8, torch.float32, torch.bfloat16, torch.float64]),
)
def test_every_frame_is_found(drawn: list[int], size: int, dtype: torch.dtype) -> None:
    """Any order of equal and different frames: spread again they are the given ones, bit for bit."""
    frames = palette(size, dtype)[drawn]
    found = distinct_frames(frames)
    again = found.spread(found.frames)
    assert again.view(torch.uint8).equal(frames.view(torch.uint8))
    assert len(found.frames) >= len(set(drawn))
    # Of mirrored frames, whose checksums are one, only the last is remembered.
    if not {0, 1} <= set(drawn):
        assert len(found.frames) == len(set(drawn))
    assert (found.frames is frames) == (len(found.frames) == len(frames))


def test_a_part_of_a_tensor() -> None:
    """Frames that begin in the middle of a tensor, where wide integers would not be aligned."""
    frames = torch.randn(1 + 2 * 12)[1:].view(2, 3, 2, 2)
    assert distinct_frames(frames).frames is frames


@pytest.mark.parametrize("views", ["1x1", "3x1", "2x3"])
def test_a_static_camera_is_encoded_once(tiny: VideoClassifier, moving_video: Path, views: str) -> None:
    """A video of equal frames costs one frame for each crop; alone and in a stream it has the scores of its frame."""
    frames, crops = read_frames(moving_video, [0]), int(views[-1])
    classes = tiny.class_features(LABELS)
    expected = tiny.classify(frames, LABELS, views=views, class_features=classes)
    for count, run in enumerate((tiny.classify, lambda *a, **k: next(iter(tiny.stream_results(*a, **k))).predictions)):
        video = frames.expand(40, -1, -1, -1) if count == 0 else [frames.expand(40, -1, -1, -1)]
        tiny.frame_counts = FrameCounts()
        found = run(video, LABELS, views=views, class_features=classes)
        assert tiny.frame_counts.encoded == crops
        assert tiny.frame_counts.given >= 8 * crops
        assert [each.index for each in found] == [each.index for each in expected]
        assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=1e-5)


def test_some_frames_repeat(tiny: VideoClassifier, moving_video: Path) -> None:
    """Repeated among others, each frame still has its own feature at its own place."""
    frames = read_frames(moving_video, range(8))
    plain = tiny.view_features(frames)
    order = torch.tensor([0, 0, 3, 3, 0, 7, 7, 1])
    assert_close(tiny.view_features(frames[order]), plain[:, order])


def test_different_frames_are_all_encoded(tiny: VideoClassifier, moving_video: Path) -> None:
    """Both counts of a moving video are equal; a fold and a copy count for themselves."""
    tiny.embed(moving_video)
    assert tiny.frame_counts.given == tiny.frame_counts.encoded == tiny.frames
    twin = copy.deepcopy(tiny)
    twin.embed(moving_video)
    assert (twin.frame_counts.given, tiny.frame_counts.given) == (2 * tiny.frames, tiny.frames)
    assert tiny.fold().frame_counts == FrameCounts()


def test_portrait_crops_are_encoded_once(tiny: VideoClassifier) -> None:
    """Three crops of a portrait video lie in its middle, so that they are one."""
    frames = torch.randint(0, 255, (8, 90, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tiny.classify(frames, LABELS, views="1x3")
    assert (tiny.frame_counts.given, tiny.frame_counts.encoded) == (24, 8)
