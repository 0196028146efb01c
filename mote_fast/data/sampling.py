"""Chooses the frames of a video's clips; pure functions of the frame count, arguments and a generator."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import LongTensor

from mote_fast.errors import ConfigError

Mode = Literal["val", "test", "train"]

# Frames that a dense clip spans, as in the official code: 16 apart for 8 segments, 8 apart for 16.
DENSE_SPAN = 128


def sample_frames(
    num_frames: int,
    segments: int,
    mode: Mode = "val",
    clips: int = 1,
    dense: bool = False,
    generator: torch.Generator | None = None,
) -> LongTensor:
    """Choose the frame indices of each clip of a video, as the official code chooses them (eq. (17)).

    - ``val``: the first frame of each of ``segments`` equal parts.
    - ``test``: ``clips`` such grids, shifted evenly within a part; one clip equals ``val``.
    - ``train``: one frame drawn from each part, uniform within the inclusive ``train_segment_bounds``.
    - ``dense``: a window of ``DENSE_SPAN`` frames instead of the whole video, wrapping around in a short one; the
      clips start at even distances over the possible range (``test``), in its middle (``val``), or at random
      (``train``, which never draws the last start). The official code draws the start of ``val`` too, and takes no
      single dense clip in ``test``.

    Videos shorter than ``segments`` repeat frames; in ``test`` mode some indices of later clips wrap to the
    end, as in the official code.

    Args:
        num_frames: frames in the video, at least 1.
        segments: frames per clip, T.
        mode: see above.
        clips: clips per video; only ``test`` takes more than 1.
        dense: see above.
        generator: source of the draws in ``train`` mode; None uses PyTorch's global one.

    Returns:
        int64 [clips, segments], 0-based, each in [0, num_frames).

    Raises:
        ConfigError: a number is below 1, the mode is unknown, or several clips are requested outside ``test``.
    """
    for name, value in (("num_frames", num_frames), ("segments", segments), ("clips", clips)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    if mode not in ("val", "test", "train"):
        raise ConfigError(f"mode must be 'val', 'test' or 'train', got {mode!r}")
    if clips > 1 and mode != "test":
        raise ConfigError(f"mode={mode!r} takes one clip; several clips are for mode='test', got clips={clips}")
    if dense:
        indices = _dense(num_frames, segments, mode, clips, generator)
    elif mode == "train":
        indices = _random_in_segments(num_frames, segments, generator)
    else:
        indices = _uniform(num_frames, segments, clips)
    return torch.from_numpy(indices.astype(np.int64))  # pyright: ignore[reportReturnType]


def train_segment_bounds(num_frames: int, segments: int) -> LongTensor:
    """Return int64 [segments, 2], the inclusive bounds within which training draws one frame per segment."""
    # Round half to even, as in the official code.
    edges = np.rint(np.arange(segments + 1) * ((num_frames - 1) / segments)).astype(np.int64)
    return torch.from_numpy(np.stack((edges[:-1], edges[1:]), axis=1))  # pyright: ignore[reportReturnType]


def _uniform(num_frames: int, segments: int, clips: int) -> np.ndarray:
    part = num_frames / segments
    starts = np.arange(segments) * part
    # In videos shorter than `segments`, part < 1 makes the later offsets negative. The official code truncates
    # towards zero and then wraps, as its golden indices show.
    offsets = np.floor(np.linspace(0, part - 1, clips)) if clips > 1 else np.zeros(1)
    return np.trunc(starts[None, :] + offsets[:, None]).astype(np.int64) % num_frames


def _random_in_segments(num_frames: int, segments: int, generator: torch.Generator | None) -> np.ndarray:
    bounds = train_segment_bounds(num_frames, segments)
    low, high = bounds[:, 0], bounds[:, 1]
    # The draw lies in [0, 1), so the floor is at most `high`.
    drawn = torch.rand(segments, generator=generator, dtype=torch.float64)
    return (low + (drawn * (high - low + 1)).long()).unsqueeze(0).numpy()


def _dense(num_frames: int, segments: int, mode: Mode, clips: int, generator: torch.Generator | None) -> np.ndarray:
    stride = max(1, DENSE_SPAN // segments)
    room = max(0, num_frames - DENSE_SPAN)
    if mode == "test":
        starts = np.arange(clips) * (room // max(1, clips - 1))
    elif mode == "val":
        starts = np.array([room // 2])
    else:
        # The official code draws below `room`, so the last window is never taken.
        starts = torch.randint(max(1, room), (1,), generator=generator).numpy()
    return (starts[:, None] + np.arange(segments)[None, :] * stride) % num_frames
