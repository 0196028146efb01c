"""Accuracy by class, by hand and against the accuracy of the whole list."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.analysis.class_accuracy import class_accuracies, class_accuracy_csv, most_divided
from mote_fast.analysis.expert_accuracy import accuracy_by
from mote_fast.evaluation.predict import Predictions
from mote_fast.evaluation.protocol_names import FULL_CLASS, RUNNING

NAMES = ["archery", "diving, from a rock", "surfing", "cycling"]


def judged_as(best: list[int], labels: list[int], classes: int = len(NAMES)) -> Predictions:
    """Predictions whose running score has ``best`` first, and whose full-class score always has class 0 first."""
    running = torch.nn.functional.one_hot(torch.tensor(best), classes).double()
    features = torch.eye(classes)[[0] * len(labels)]
    return Predictions(torch.arange(len(labels)), torch.tensor(labels), running, features, torch.eye(classes), ())


LABELS = [0, 0, 1, 1, 2]
PREDICTIONS = {
    "merged": judged_as([0, 1, 1, 1, 2], LABELS),
    "expert 0": judged_as([0, 0, 0, 0, 0], LABELS),
    "expert 1": judged_as([0, 1, 1, 1, 2], LABELS),
}


def test_by_hand() -> None:
    """Shares of each class; the spread is between experts; a class without videos has no accuracy and is not drawn."""
    rows = class_accuracies(PREDICTIONS, NAMES)
    assert [row.videos for row in rows] == [2, 2, 1, 0]
    assert rows[0].top1 == {"merged": 50.0, "expert 0": 100.0, "expert 1": 50.0}
    assert [row.spread for row in rows[:3]] == [50.0, 100.0, 100.0]
    assert math.isnan(rows[3].spread)
    assert [row.label for row in most_divided(rows, 9)] == [1, 2, 0]
    assert [row.label for row in most_divided(rows, 1)] == [1]
    assert class_accuracies(PREDICTIONS, NAMES, FULL_CLASS)[1].top1["merged"] == 0.0
    assert class_accuracy_csv(rows).splitlines() == [
        "class,name,videos,merged,expert 0,expert 1,expert_spread",
        "0,archery,2,50.0000,100.0000,50.0000,50.0000",
        '1,"diving, from a rock",2,100.0000,0.0000,100.0000,100.0000',
        "2,surfing,1,100.0000,0.0000,100.0000,100.0000",
        "3,cycling,0,,,,",
    ]


@pytest.mark.heavy
@given(videos=st.integers(1, 30), classes=st.integers(1, 6), seed=st.integers(0, 1000))
def test_classes_add_up(videos: int, classes: int, seed: int) -> None:
    """The mean of the classes' accuracies, weighted by their videos, is the accuracy of the list."""
    generator = torch.Generator().manual_seed(seed)
    best, labels = torch.randint(classes, (2, videos), generator=generator).tolist()
    predictions = judged_as(best, labels, classes)
    rows = class_accuracies({"expert 0": predictions}, [str(each) for each in range(classes)])
    right = sum(row.top1["expert 0"] * row.videos for row in rows if row.videos)
    assert right / videos == pytest.approx(accuracy_by(predictions, RUNNING).top1)
