"""Accuracies of predictions: by both scores of the official code, over the readable videos and over all.

The official code prints two accuracies and does not say which one its tables report. Here both have names:

* ``running``: from the scores that it accumulates batch by batch (softmax of unscaled cosines per view, mean over
  views, softmax again);
* ``full-class``: from the scores that it computes at the end from all videos' features (softmax of 100 x cosine of
  the mean view feature). The half-class protocol uses this one alone.

Each is reported over the readable videos, and over all listed videos, where an unreadable video counts as wrong.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mote_fast.data.items import UNLABELLED
from mote_fast.evaluation.predict import Predictions
from mote_fast.evaluation.protocols import Accuracy

# Labels kept from each video's ranking.
KEPT = 5


@dataclass(frozen=True)
class Ranked:
    """The best labels of each of N listed videos, by one score.

    Attributes:
        labels: int64 [N], the true labels.
        best: int64 [N, k], best first, k the smaller of 5 and the number of classes; a row of ``UNLABELLED`` for a
            video that could not be read.
    """

    labels: Tensor
    best: Tensor

    @property
    def read(self) -> Tensor:
        """bool [N], which videos could be read."""
        return self.best[:, 0] != UNLABELLED

    def hits(self, top: int) -> Tensor:
        """bool [N], whether the label is among the ``top`` best; False for a video that could not be read."""
        return (self.best[:, :top] == self.labels[:, None]).any(-1) & self.read

    @property
    def percentages(self) -> dict[str, float]:
        """``accuracy`` by name."""
        return self.accuracy._asdict()

    @property
    def percentages_of_all(self) -> dict[str, float]:
        """``accuracy_of_all`` by name."""
        return self.accuracy_of_all._asdict()

    @property
    def accuracy(self) -> Accuracy:
        """Accuracy over the readable videos; NaN if none could be read."""
        return self._percent(int(self.read.sum()))

    @property
    def accuracy_of_all(self) -> Accuracy:
        """Accuracy over all listed videos; an unreadable one counts as wrong."""
        return self._percent(len(self.labels))

    def _percent(self, videos: int) -> Accuracy:
        top1, top5 = (int(self.hits(top).sum()) for top in (1, KEPT))
        if not videos:
            return Accuracy(float("nan"), float("nan"))
        return Accuracy(100.0 * top1 / videos, 100.0 * top5 / videos)


def rank(scores: Tensor, rows: Tensor, labels: Tensor) -> Ranked:
    """Rank the labels of listed videos.

    Args:
        scores: [R, C], scores of the readable videos.
        rows: int64 [N], the row of each listed video in ``scores``; negative if it could not be read.
        labels: int64 [N], in [0, C).
    """
    best = torch.full((len(rows), min(KEPT, scores.shape[1])), UNLABELLED)
    read = rows >= 0
    best[read] = scores.topk(best.shape[1], dim=-1).indices[rows[read]]
    return Ranked(labels, best)


class Accuracies(NamedTuple):
    """The accuracies of one pass over a list; percentages.

    Attributes:
        videos: number of listed videos.
        failed: number of unreadable videos.
        running: accuracy of the running score over the readable videos; see the module's description.
        full_class: accuracy of the full-class score over the readable videos.
        running_of_all: the same as ``running`` with the unreadable videos counted as wrong.
        full_class_of_all: the same for ``full_class``.
    """

    videos: int
    failed: int
    running: Accuracy
    full_class: Accuracy
    running_of_all: Accuracy
    full_class_of_all: Accuracy


def accuracies(predictions: Predictions) -> Accuracies:
    """Return the accuracies of a whole list from its ``predict`` result."""
    failed = len(predictions.failures)
    # Unreadable videos are appended as misses; their position and label do not matter.
    rows = torch.cat((torch.arange(len(predictions.indices)), torch.full((failed,), -1)))
    labels = torch.cat((predictions.labels, torch.full((failed,), UNLABELLED)))
    running, full_class = (rank(scores, rows, labels) for scores in (predictions.running, predictions.full_class))
    return Accuracies(
        len(labels),
        failed,
        running.accuracy,
        full_class.accuracy,
        running.accuracy_of_all,
        full_class.accuracy_of_all,
    )


class ClassCounts(NamedTuple):
    """Videos of each class: listed, readable, and with their label ranked first; int64 [C] each."""

    videos: Tensor
    read: Tensor
    correct: Tensor


def count_classes(ranked: Ranked, classes: int) -> ClassCounts:
    """Count by class; ``correct / read`` is the class's accuracy over its readable videos."""
    labels = ranked.labels
    parts = (labels, labels[ranked.read], labels[ranked.hits(1)])
    return ClassCounts(*(torch.bincount(part, minlength=classes) for part in parts))


class MeanStd(NamedTuple):
    """Mean over splits, and their population deviation as in the official code (divided by the number of splits)."""

    mean: float
    deviation: float


def mean_and_deviation(values: Sequence[float]) -> MeanStd:
    """Summarise the splits' percentages; one split has deviation 0."""
    return MeanStd(statistics.fmean(values), statistics.pstdev(values))
