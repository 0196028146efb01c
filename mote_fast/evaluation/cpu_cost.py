"""What encoding many frames will cost on a CPU, estimated from a few of them before the work begins."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch

from mote_fast.model.classifier import VideoClassifier

# Work that takes less is begun without a word, seconds.
WORTH_SAYING = 300.0

# Fewer frames are not timed: the largest tower takes about a second for one.
_FEW_FRAMES = 300

# Frames that are timed, after one that is not.
_TIMED = 3


class FrameCost(NamedTuple):
    """The time of a frame in the image tower, seconds, and the frames to be encoded."""

    seconds: float
    frames: int

    @property
    def total(self) -> float:
        """Seconds of all frames."""
        return self.seconds * self.frames

    def __str__(self) -> str:
        """Say what it costs, and what that is known from."""
        return (
            f"about {about(self.total)} on this CPU for {self.frames:,} frames in the image tower (an estimate: "
            f"{_TIMED} frames took {self.seconds:.2g} s each; decoding comes on top)"
        )


def frame_cost(
    model: VideoClassifier, frames: int, autocast: AbstractContextManager[Any] | None = None
) -> FrameCost | None:
    """Time some frames in the image tower; None on another device than a CPU, or where the work is soon done.

    Args:
        model: the model, whose image tower is run.
        frames: frames to be encoded by this process.
        autocast: the context of the work; None for none.
    """
    if model.device.type != "cpu" or frames < _FEW_FRAMES:
        return None
    side = model.clip.image_size
    pixels = torch.zeros(_TIMED, 3, side, side, dtype=model.clip.dtype)
    with torch.inference_mode(), autocast or nullcontext():
        # The first frame also pays for what is made once.
        model.encode_frames(pixels[:1])
        start = time.perf_counter()
        model.encode_frames(pixels)
        cost = FrameCost((time.perf_counter() - start) / _TIMED, frames)
    return cost if cost.total > WORTH_SAYING else None


def about(seconds: float) -> str:
    """Return a length of time in the unit that suits it."""
    for unit, length, most in (("min", 60, 120), ("h", 3600, 48)):
        if round(seconds / length) < most:
            return f"{max(1, round(seconds / length))} {unit}"
    return f"{round(seconds / 86400)} days"
