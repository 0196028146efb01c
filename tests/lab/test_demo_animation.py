"""README's picture: drawn from the demo's videos, with the label that the shipped model gives."""

from __future__ import annotations

import demo_animation
import pytest

import mote_fast


@pytest.mark.filterwarnings("ignore::mote_fast.errors.UntrainedWarning")
def test_the_picture_says_what_the_model_says() -> None:
    """Label and verdict are the model's and the file name's; every video is in every frame."""
    path = sorted(demo_animation.CLIPS.glob("combinations/*.mp4"))[0]
    found = demo_animation.judge(mote_fast.load("tiny"), path)
    assert found.label == found.truth == "plain red ring sliding to the right"
    pictures = demo_animation.draw([found] * 4, frames=2)
    assert [picture.size for picture in pictures] == [(480, 432)] * 2
    assert len({picture.tobytes() for picture in pictures}) == 2
