"""Average precision: how high the videos of a class rank among all, for lists with several labels per video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mote_fast.data.items import VideoItem
from mote_fast.errors import ShapeError

# The score that classes do not compete for, as binary cross-entropy trains them: the cosine of the mean view feature.
COSINE = "cosine"


@dataclass(frozen=True)
class Relevance:
    """The scores of N listed videos for C classes, by one score, and which are right.

    Attributes:
        scores: float64 [N, C]; rows of videos that could not be read do not matter.
        positives: bool [N, C], the classes of each video.
        read: bool [N], which videos could be read.
    """

    scores: Tensor
    positives: Tensor
    read: Tensor

    @cached_property
    def by_class(self) -> Tensor:
        """float64 [C], average precision of each class over the readable videos, percent; NaN without a video."""
        return 100 * average_precisions(self.scores[self.read], self.positives[self.read])

    @property
    def percentages(self) -> dict[str, float]:
        """``map``, mean average precision over the readable videos."""
        return {"map": mean_over_classes(self.by_class)}

    @property
    def percentages_of_all(self) -> dict[str, float]:
        """The same over all listed videos; the classes of an unreadable one are never found."""
        missed = self.positives[~self.read].sum(0)
        found = average_precisions(self.scores[self.read], self.positives[self.read], missed)
        return {"map": mean_over_classes(100 * found)}


def average_precisions(scores: Tensor, positives: Tensor, missed: Tensor | None = None) -> Tensor:
    """Return the average precision of each class, float64 [C] in [0, 1]; NaN for a class without a positive video.

    AP is the sum over the distinct scores, from the highest, of (recall there - recall before) x precision there:
    videos of equal score enter together, so that their order does not matter. This is scikit-learn's
    ``average_precision_score``.

    Args:
        scores: [N, C]; no NaN.
        positives: bool [N, C].
        missed: int64 [C], positive videos of each class that have no scores: recall counts them, and none is found.

    Raises:
        ShapeError: the shapes differ.
    """
    if scores.shape != positives.shape or scores.ndim != 2:
        raise ShapeError(f"scores and positives must be [N, C] alike, got {[*scores.shape]} and {[*positives.shape]}")
    found = torch.full((scores.shape[1],), torch.nan, dtype=torch.float64)
    unfound = positives.new_zeros(positives.shape[1], dtype=torch.int64) if missed is None else missed
    found[unfound > 0] = 0
    for label in positives.any(0).nonzero().flatten().tolist():
        ranked, order = scores[:, label].sort(descending=True)
        hits = positives[order, label].cumsum(0)
        # The last video of each distinct score.
        last = torch.cat((ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool))).nonzero().flatten()
        recall = hits[last].double() / (hits[-1] + unfound[label])
        precision = hits[last].double() / (last + 1)
        found[label] = (recall.diff(prepend=recall.new_zeros(1)) * precision).sum()
    return found


def mean_over_classes(values: Tensor) -> float:
    """Return the mean of the classes [C] that have a value; NaN if none has."""
    return float(values.nanmean())


def positives_of(items: Sequence[VideoItem], classes: int) -> Tensor:
    """Return bool [N, C], the classes of each video; the labels must lie in [0, C)."""
    positives = torch.zeros(len(items), classes, dtype=torch.bool)
    rows = torch.tensor([row for row, item in enumerate(items) for _ in item.labels])
    positives[rows, torch.tensor([label for item in items for label in item.labels])] = True
    return positives
