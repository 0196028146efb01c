"""Views: parsing, and the plan that decodes and encodes shared frames once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data import sample_frames
from mote_fast.data.views import Views, plan_views
from mote_fast.errors import ConfigError


@given(frames=st.integers(1, 200), length=st.integers(1, 16), clips=st.integers(1, 5), crops=st.sampled_from([1, 3]))
def test_gather_gives_each_view_its_frames(frames: int, length: int, clips: int, crops: int) -> None:
    """Features labelled by frame and crop arrive at the clip, crop and time that sampling chose."""
    plan = plan_views(frames, length, Views(clips, crops))
    assert plan.frame_indices.unique().numel() == plan.frame_indices.numel()
    labelled = torch.stack(
        torch.meshgrid(plan.frame_indices.float(), torch.arange(crops).float(), indexing="ij"), dim=-1
    )
    views = plan.gather(labelled)
    wanted = sample_frames(frames, length, "test", clips=clips)
    assert views.shape == (clips * crops, length, 2)
    for clip in range(clips):
        for crop in range(crops):
            view = views[clip * crops + crop]
            assert view[:, 0].tolist() == wanted[clip].tolist()
            assert set(view[:, 1].tolist()) == {float(crop)}


def test_shared_frames_are_planned_once() -> None:
    """In a short video three clips of eight frames share most of them."""
    assert plan_views(10, 8, Views(3, 1)).frame_indices.numel() <= 10


@pytest.mark.parametrize("text", ["3", "0x1", "3x2", "x", "3x1x1", "-1x1", "3 x 1", ""])
def test_malformed_views_are_refused(text: str) -> None:
    """Anything but CLIPSx1 or CLIPSx3 raises, and the error quotes the text."""
    with pytest.raises(ConfigError, match="views must be"):
        Views.parse(text)


def test_views_of_the_paper() -> None:
    """The three protocols parse."""
    assert [Views.parse(text) for text in ("1x1", "3x1", "4x3")] == [(1, 1), (3, 1), (4, 3)]
