"""The batches that loaders yield."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mote_fast.data.loading.faults import Failure


@dataclass(frozen=True)
class Batch:
    """Clips of B videos, V views each, ready for the frame encoder.

    Attributes:
        pixels: [B * V, T, 3, S, S], normalised, on the loader's device in the loader's dtype; the views of a video
            are adjacent. ``FeatureLoader`` has features [B * V, T, d] in their place.
        labels: int64 [B], on the same device. Training by binary cross-entropy puts float32 [B, C] in their place.
        indices: int64 [B] on the CPU: each video's index in the list. In training, an unreadable video's slot has the
            index of its stand-in.
        failures: the videos of this batch that could not be read. In evaluation they are not among ``indices``, and
            B is smaller by their number.
    """

    pixels: Tensor
    labels: Tensor
    indices: Tensor
    failures: Sequence[Failure] = ()
