"""Scores windows of a video whose frames come one after another, from a file or live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mote_fast.timeline.windows import FeatureWindows, WindowBatch, WindowPlan


class WindowScores(NamedTuple):
    """The scores of B windows.

    Attributes:
        times: the middle of each, in seconds.
        cosines: float32 [B, C], on the CPU: of each label, as ``VideoHead.forward`` returns them.
        reference: float32 [B], on the CPU: mean cosine with the classes of fine-tuning; 0 if the model has none.
        background: float32 [B, K], on the CPU: cosines with a background; K is 0 without any.
        pooled: float16 [B, d], on the CPU, of unit length: the windows' features, if an example needs them; else d is
            0.
    """

    times: list[float]
    cosines: Tensor
    reference: Tensor
    background: Tensor
    pooled: Tensor


class WindowScorer:
    """Takes frames one after another, encodes each once, and scores the windows that become complete.

    Args:
        plan: the windows.
        crop: maps frames, uint8 [N, H, W, 3], to crops.
        encode: maps crops, uint8 [N, 3, S, S], to features [N, d].
        score: maps the frame features [B, T, d] and the times of windows to their scores.
    """

    def __init__(
        self,
        plan: WindowPlan,
        crop: Callable[[Tensor], Tensor],
        encode: Callable[[Tensor], Tensor],
        score: Callable[[Tensor, list[float]], WindowScores],
    ) -> None:
        self.plan = plan
        self._crop, self._encode, self._score = crop, encode, score
        self._windows = FeatureWindows(plan)

    def push(self, frames: Tensor, times: Sequence[float]) -> WindowScores | None:
        """Take frames, uint8 [N, H, W, 3], and their times in seconds, which ascend by a tick of the plan's clock.

        Returns:
            The windows that end with these frames; None if none does.
        """
        return self.push_crops(self._crop(frames), range(len(frames)), times)

    def push_crops(self, crops: Tensor, positions: Sequence[int], times: Sequence[float]) -> WindowScores | None:
        """Take what ``push`` does, cropped: uint8 [U, 3, S, S], and the place among them of each tick's frame."""
        features = self._encode(crops)[torch.tensor(list(positions))]
        return self._scored(self._windows.push(features, times))

    def finish(self) -> WindowScores | None:
        """Return the window at the end of the frames, see ``FeatureWindows``."""
        return self._scored(self._windows.finish())

    def restart(self) -> None:
        """Forget the frames so far: what comes next does not follow them."""
        self._windows = FeatureWindows(self.plan)

    @torch.no_grad()
    def _scored(self, batch: WindowBatch | None) -> WindowScores | None:
        return None if batch is None else self._score(batch.features, batch.times)


def joined(parts: Sequence[WindowScores]) -> WindowScores:
    """Return the scores of all windows of a video, at least one."""
    times = [time for part in parts for time in part.times]
    return WindowScores(times, *(torch.cat(tensors) for tensors in list(zip(*parts, strict=True))[1:]))
