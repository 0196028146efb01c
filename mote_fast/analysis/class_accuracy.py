"""Accuracy of each expert alone on every class (paper Figure 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from mote_fast.analysis.tables import to_csv
from mote_fast.analysis.variants import MERGED
from mote_fast.evaluation.accuracy import count_classes, rank
from mote_fast.evaluation.predict import Predictions
from mote_fast.evaluation.protocol_names import RUNNING


@dataclass(frozen=True)
class ClassAccuracy:
    """Top-1 accuracy of every variant on the videos of one class.

    Attributes:
        label: index of the class.
        name: name of the class.
        videos: number of its readable videos.
        top1: percent, by the variant's name; NaN if no video could be read.
    """

    label: int
    name: str
    videos: int
    top1: Mapping[str, float]

    @property
    def spread(self) -> float:
        """Difference in points between the best and the worst expert, excluding the merged model."""
        experts = [value for variant, value in self.top1.items() if variant != MERGED]
        return max(experts) - min(experts)


def class_accuracies(
    predictions: Mapping[str, Predictions], class_names: Sequence[str], score: str = RUNNING
) -> list[ClassAccuracy]:
    """Return the accuracy of every class, in the order of their indices.

    Args:
        predictions: of the merged model and of each expert, by the variant's name, on one list.
        class_names: class names of that list.
        score: "running" or "full-class", see ``mote_fast.evaluation.accuracy``.
    """
    counts = {variant: _counts(each, len(class_names), score) for variant, each in predictions.items()}
    rows: list[ClassAccuracy] = []
    for label, name in enumerate(class_names):
        videos = int(next(iter(counts.values()))[0][label])
        top1 = {
            variant: 100.0 * int(correct[label]) / videos if videos else float("nan")
            for variant, (_, correct) in counts.items()
        }
        rows.append(ClassAccuracy(label, name, videos, top1))
    return rows


def most_divided(rows: Sequence[ClassAccuracy], count: int) -> list[ClassAccuracy]:
    """Return the classes on which the experts differ most, in descending order; ties keep the order of the list."""
    judged = [row for row in rows if row.videos]
    return sorted(judged, key=lambda row: -row.spread)[:count]


def class_accuracy_csv(rows: Sequence[ClassAccuracy]) -> str:
    """Return one line for each class."""
    variants = list(rows[0].top1)
    header = ["class", "name", "videos", *variants, "expert_spread"]
    return to_csv(header, ([row.label, row.name, row.videos, *row.top1.values(), row.spread] for row in rows))


def _counts(predictions: Predictions, classes: int, score: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Readable and correctly classified videos per class, int64 [C] each."""
    scores = predictions.running if score == RUNNING else predictions.full_class
    ranked = rank(scores, torch.arange(len(predictions.labels)), predictions.labels)
    counts = count_classes(ranked, classes)
    return counts.read, counts.correct
