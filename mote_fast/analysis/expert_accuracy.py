"""Accuracy of each expert alone, on the classes of fine-tuning and on others (paper Figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mote_fast.analysis.tables import to_csv
from mote_fast.errors import ConfigError
from mote_fast.evaluation.accuracy import accuracies
from mote_fast.evaluation.predict import Predictions
from mote_fast.evaluation.protocol_names import RUNNING
from mote_fast.evaluation.protocols import Accuracy


@dataclass(frozen=True)
class ExpertAccuracy:
    """Accuracy of one variant of a model, percent over the readable videos; NaN if none could be read."""

    variant: str
    close_set: Accuracy
    zero_shot: Accuracy


def expert_accuracies(
    close_set: Mapping[str, Predictions], zero_shot: Mapping[str, Predictions], score: str = RUNNING
) -> list[ExpertAccuracy]:
    """Return the accuracies of each variant on both lists.

    Args:
        close_set: predictions of each variant, by its name, on classes of fine-tuning.
        zero_shot: predictions of the same variants on other classes.
        score: "running" or "full-class", see ``mote_fast.evaluation.accuracy``.

    Raises:
        ConfigError: the two have different variants.
    """
    if list(close_set) != list(zero_shot):
        raise ConfigError(f"the two lists were judged by different variants: {list(close_set)}, {list(zero_shot)}")
    return [
        ExpertAccuracy(variant, accuracy_by(close_set[variant], score), accuracy_by(zero_shot[variant], score))
        for variant in close_set
    ]


def accuracy_by(predictions: Predictions, score: str) -> Accuracy:
    """Return the accuracy over the readable videos by one of the two scores."""
    found = accuracies(predictions)
    return found.running if score == RUNNING else found.full_class


def expert_accuracy_csv(rows: Sequence[ExpertAccuracy]) -> str:
    """Return one line for each variant."""
    header = ["variant", "close_set_top1", "close_set_top5", "zero_shot_top1", "zero_shot_top5"]
    return to_csv(header, ([row.variant, *row.close_set, *row.zero_shot] for row in rows))
