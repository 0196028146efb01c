"""Accuracies of predictions: by both scores of the official code, over the readable videos and over all.

The official code prints two accuracies without saying which one its tables hold. Here each goes by its name:

* ``running``: of the scores that it accumulates batch by batch (softmax of unscaled cosines per view, mean over
  views, softmax again);
* ``full-class``: of the scores that it computes at the end from all videos' features (softmax of 100 x cosine of
  the mean view feature). The half-class protocol uses this one alone.

Each is given over the videos that could be read, and over all that were listed, where one that could not be read
counts as wrong.
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

# Names of the two scores, in reports and result files.
RUNNING = "running"
FULL_CLASS = "full-class"

# Labels that are kept of each video's ranking.
KEPT = 5


@dataclass(frozen=True)
class Ranked:
    """The best labels of each of N listed videos, by one score.

    Attributes:
        labels: int64 [N], the true ones.
        best: int64 [N, k], best first, k the smaller of 5 and the number of classes; ``UNLABELLED`` throughout for a
            video that could not be read.
    """

    labels: Tensor
    best: Tensor

    @property
    def read(self) -> Tensor:
        """bool [N], which videos could be read."""
        return self.best[:, 0] != UNLABELLED

    def hits(self, top: int) -> Tensor:
        """bool [N], whose label is among the ``top`` best; never for a video that could not be read."""
        return (self.best[:, :top] == self.labels[:, None]).any(-1) & self.read

    @property
    def accuracy(self) -> Accuracy:
        """Over the videos that could be read; not a number where none could."""
        return self._percent(int(self.read.sum()))

    @property
    def accuracy_of_all(self) -> Accuracy:
        """Over all listed videos: one that could not be read counts as wrong."""
        return self._percent(len(self.labels))

    def _percent(self, videos: int) -> Accuracy:
        top1, top5 = (int(self.hits(top).sum()) for top in (1, KEPT))
        if not videos:
            return Accuracy(float("nan"), float("nan"))
        return Accuracy(100.0 * top1 / videos, 100.0 * top5 / videos)


def rank(scores: Tensor, rows: Tensor, labels: Tensor) -> Ranked:
    """Rank the labels of listed videos.

    Args:
        scores: [R, C], of the videos that could be read.
        rows: int64 [N], the row of each listed video in ``scores``; negative if it could not be read.
        labels: int64 [N], in [0, C).
    """
    best = torch.full((len(rows), min(KEPT, scores.shape[1])), UNLABELLED)
    read = rows >= 0
    best[read] = scores.topk(best.shape[1], dim=-1).indices[rows[read]]
    return Ranked(labels, best)


class Accuracies(NamedTuple):
    """What one pass over a list found; percentages.

    Attributes:
        videos: how many were listed.
        failed: how many of them could not be read.
        running: accuracy of the running score over the readable videos; see the module's description.
        full_class: accuracy of the full-class score over the readable videos.
        running_of_all: the same as ``running`` with the unreadable videos counted as wrong.
        full_class_of_all: likewise.
    """

    videos: int
    failed: int
    running: Accuracy
    full_class: Accuracy
    running_of_all: Accuracy
    full_class_of_all: Accuracy


def accuracies(predictions: Predictions) -> Accuracies:
    """Return the accuracies of a whole list, as ``predict`` went over it."""
    failed = len(predictions.failures)
    # Wherever they stood in the list, and whatever they showed: unread videos count, and nothing else of them does.
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
    """Mean over splits, and their deviation (of the population, as official: divided by the number of splits)."""

    mean: float
    deviation: float


def mean_and_deviation(values: Sequence[float]) -> MeanStd:
    """Summarise the splits' percentages; one split has deviation 0."""
    return MeanStd(statistics.fmean(values), statistics.pstdev(values))
