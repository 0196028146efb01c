"""Finds equal frames, so that each is encoded once: those of static cameras, padded clips and crops that coincide.

Frames are equal if they are the same to the last bit after scaling. To find them costs one sum over each frame's pixels
(224 x 224 on a CPU: a few microseconds, beside tens of milliseconds of ViT-B/16).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Held while a count changes. One for all models, because a lock cannot be copied with a model.
_COUNTING = threading.Lock()


class DistinctFrames(NamedTuple):
    """The distinct ones of N frames, and where each of the N is among them."""

    frames: Tensor  # [U, ...], in the order of their first occurrence; the given tensor itself if all differ
    positions: Tensor  # int64 [N], into the first dimension of ``frames``, on their device

    def spread(self, features: Tensor) -> Tensor:
        """Return the features [N, ...] of all frames, given those of the distinct ones [U, ...]."""
        return features if len(self.positions) == len(features) else features[self.positions.to(features.device)]


def distinct_frames(frames: Tensor) -> DistinctFrames:
    """Find the distinct frames among ``frames [N, ...]``, N at least 1."""
    bits = _as_integers(frames)
    positions: list[int] = []
    chosen: list[int] = []
    # By checksum, which other frames may share: the last distinct frame that has it.
    latest: dict[int, int] = {}
    for row, total in enumerate(bits.sum(1, dtype=torch.int64).tolist()):
        known = latest.get(total)
        if known is None or not torch.equal(bits[chosen[known]], bits[row]):
            known = latest[total] = len(chosen)
            chosen.append(row)
        positions.append(known)
    kept = frames if len(chosen) == len(frames) else frames[chosen]
    return DistinctFrames(kept, torch.tensor(positions, device=frames.device))


@dataclass
class FrameCounts:
    """How many frames the image tower was spared; threads may share it.

    Attributes:
        given: frames so far, or crops of frames, that the views of videos consist of.
        encoded: those that passed the image tower; equal ones pass it once.
    """

    given: int = 0
    encoded: int = 0

    def add(self, found: DistinctFrames) -> None:
        """Count the frames of a video, or of several."""
        with _COUNTING:
            self.given += len(found.positions)
            self.encoded += len(found.frames)


def _as_integers(frames: Tensor) -> Tensor:
    """Return the bytes of each frame as the largest integers that divide them, [N, P]: NaN equals itself in these."""
    rows = frames.flatten(1)
    row, start = (count * rows.element_size() for count in (rows.shape[1], rows.storage_offset()))
    kinds = (torch.int64, torch.int32, torch.int16, torch.uint8)
    return rows.view(next(kind for kind in kinds if row % kind.itemsize == start % kind.itemsize == 0))
