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
        background: float32 [B, K], on the CPU: cosines with background vectors; K is 0 without any.
    """

    times: list[float]
    cosines: Tensor
    background: Tensor


class WindowScorer:
    """Takes frames one after another, encodes each once, and scores the windows that become complete.

    Args:
        plan: the windows.
        crop: maps frames, uint8 [N, H, W, 3], to crops.
        encode: maps crops, uint8 [N, 3, S, S], to features [N, d].
        score: maps frame features [B, T, d] of windows to cosines with the labels [B, C] and the background [B, K].
    """

    def __init__(
        self,
        plan: WindowPlan,
        crop: Callable[[Tensor], Tensor],
        encode: Callable[[Tensor], Tensor],
        score: Callable[[Tensor], tuple[Tensor, Tensor]],
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
        if batch is None:
            return None
        cosines, background = self._score(batch.features)
        return WindowScores(batch.times, cosines.float().cpu(), background.float().cpu())


def joined(parts: Sequence[WindowScores]) -> WindowScores:
    """Return the scores of all windows of a video, at least one."""
    times = [time for part in parts for time in part.times]
    return WindowScores(
        times, torch.cat([part.cosines for part in parts]), torch.cat([part.background for part in parts])
    )
