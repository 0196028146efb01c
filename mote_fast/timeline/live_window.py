"""The result of one window of a live source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class LiveWindow:
    """What a window of a live source shows. Times are seconds since the source's first frame.

    Attributes:
        start: of the window.
        end: of the window.
        label: the best label; None if the window is rejected, see ``background`` of ``stream``.
        index: of the best label in ``labels``, also of a rejected window.
        score: probability of the best label.
        level: what rejection compares, see ``Timeline.levels``.
        labels: C names, as given.
        scores: float32 [C], the probability of each label.
        delay: seconds from the arrival of the window's last frame to this result; 0 for a file.
        dropped: frames of the source that were dropped so far, because the model was slower.
    """

    start: float
    end: float
    label: str | None
    index: int
    score: float
    level: float
    labels: Sequence[str] = field(repr=False)
    scores: Tensor = field(repr=False)
    delay: float = 0.0
    dropped: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the values by their names, which JSON can hold; without the labels, which are the same each time."""
        found = dict(vars(self)) | {"scores": self.scores.tolist()}
        del found["labels"]
        return found
