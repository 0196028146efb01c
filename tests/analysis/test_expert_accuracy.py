"""Accuracies of experts side by side, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mote_fast.analysis.expert_accuracy import expert_accuracies, expert_accuracy_csv
from mote_fast.errors import ConfigError
from mote_fast.evaluation.predict import Predictions
from mote_fast.evaluation.protocol_names import FULL_CLASS, RUNNING

CLASSES = 6


def judged_as(best: list[int], labels: list[int]) -> Predictions:
    """Predictions whose running score has ``best`` first, and whose full-class score is always right."""
    running = torch.nn.functional.one_hot(torch.tensor(best, dtype=torch.int64), CLASSES).double()
    features = torch.eye(CLASSES)[labels] if labels else torch.empty(0, CLASSES)
    return Predictions(torch.arange(len(labels)), torch.tensor(labels), running, features, torch.eye(CLASSES), ())


def test_by_hand() -> None:
    """Right in 2 of 4 and 1 of 2; right in all; the other score is another number."""
    close = {"merged": judged_as([0, 1, 2, 3], [0, 1, 3, 2]), "expert 0": judged_as([0, 0], [0, 0])}
    zero = {"merged": judged_as([5, 1], [5, 0]), "expert 0": judged_as([], [])}
    rows = expert_accuracies(close, zero, RUNNING)
    assert [row.variant for row in rows] == ["merged", "expert 0"]
    assert (rows[0].close_set.top1, rows[0].zero_shot.top1) == (50.0, 50.0)
    assert rows[1].close_set.top1 == 100.0
    assert math.isnan(rows[1].zero_shot.top1)
    assert expert_accuracies(close, zero, FULL_CLASS)[0].close_set.top1 == 100.0
    lines = expert_accuracy_csv(rows).splitlines()
    assert lines[0] == "variant,close_set_top1,close_set_top5,zero_shot_top1,zero_shot_top5"
    assert lines[1].startswith("merged,50.0000,")
    assert lines[2].startswith("expert 0,100.0000,")
    assert lines[2].endswith(",,")


def test_other_variants() -> None:
    """Accuracies of different variants cannot be combined."""
    with pytest.raises(ConfigError, match="different variants"):
        expert_accuracies({"merged": judged_as([0], [0])}, {"expert 0": judged_as([0], [0])})
