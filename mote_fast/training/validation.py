"""What a validation measures: accuracies, or mean average precision where videos may have several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from mote_fast.data.items import VideoItem
from mote_fast.evaluation.accuracy import KEPT, accuracies
from mote_fast.evaluation.average_precision import Relevance, positives_of
from mote_fast.evaluation.predict import Predictions

# What the log calls them.
_NAMES = {"top1": "top-1", "top5": "top-5", "map": "mAP"}


class Validation(NamedTuple):
    """The result of a validation.

    Attributes:
        percentages: over the readable videos, by name: "top1" and "top5" by the running score, or "map" by the cosine
            of the mean view feature. The first decides which model is the best. NaN if no video could be read.
        videos: number of listed videos.
        failed: number of unreadable videos.
        classes: number of classes.
    """

    percentages: Mapping[str, float]
    videos: int
    failed: int
    classes: int

    def line(self) -> str:
        """Return the result for the log; of five classes one is always among the best five."""
        telling = {name: value for name, value in self.percentages.items() if name != "top5" or self.classes > KEPT}
        parts = ", ".join(f"{_NAMES[name]} {value:.2f}%" for name, value in telling.items())
        return f"{parts} of {self.videos - self.failed} videos ({self.failed} unreadable)"


def measure(predictions: Predictions, items: Sequence[VideoItem] | None) -> Validation:
    """Measure the predictions of a validation list.

    Args:
        predictions: the result of ``predict`` over the list.
        items: the list, for mean average precision; None for accuracies.
    """
    if items is None:
        found = accuracies(predictions)
        return Validation(found.running._asdict(), found.videos, found.failed, len(predictions.class_features))
    read = [items[index] for index in predictions.indices.tolist()]
    scores = predictions.features.double() @ predictions.class_features.double().T
    relevance = Relevance(scores, positives_of(read, scores.shape[1]), torch.ones(len(read), dtype=torch.bool))
    return Validation(relevance.percentages, len(items), len(predictions.failures), scores.shape[1])
