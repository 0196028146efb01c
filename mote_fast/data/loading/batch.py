"""What loaders yield, and what a loader is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mote_fast.data.loading.faults import Failure, FaultLog
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import normalise


@dataclass(frozen=True)
class Batch:
    """Clips of B videos, V views each, ready for the frame encoder.

    Attributes:
        pixels: [B * V, T, 3, S, S], normalised, on the loader's device in the loader's dtype; the views of a video
            side by side.
        labels: int64 [B], on the same device.
        indices: int64 [B] on the CPU: which video of the list each one is. In training that is the stand-in, where a
            video could not be read.
        failures: the videos of this batch that could not be read. In evaluation they are not among ``indices``, and
            B is smaller by as many.
    """

    pixels: Tensor
    labels: Tensor
    indices: Tensor
    failures: Sequence[Failure] = ()


def normalised_batch(
    pixels: Tensor,
    labels: Tensor,
    indices: Tensor,
    failures: Sequence[Failure],
    *,
    recipe: ClipRecipe,
    device: torch.device,
    dtype: torch.dtype,
) -> Batch:
    """Bring clips to the device as bytes, a quarter of what float32 takes, and normalise them there all at once.

    Args:
        pixels: uint8 [B, V, T, 3, S, S], on the host.
        labels: int64 [B].
        indices: int64 [B], on the CPU.
        failures: see ``Batch``.
        recipe: of the clips.
        device: of the batch.
        dtype: of its pixels.
    """
    moved = pixels.flatten(0, 1).to(device, non_blocking=True)
    return Batch(
        normalise(moved, recipe.mean, recipe.std, dtype), labels.to(device, non_blocking=True), indices, failures
    )


class VideoLoader(Protocol):
    """Yields the batches of one rank; see ``mote_fast.data.make_loader``."""

    faults: FaultLog

    @property
    def batches_per_epoch(self) -> int:
        """Batches that ``epoch`` yields when it starts at 0."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch ``start`` on; the same ones whatever came before."""
        ...

    def close(self) -> None:
        """Stop the workers and give back their memory."""
        ...
