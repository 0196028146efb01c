"""Accuracies by hand, and the official protocol's own numbers through predictions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from mote_fast.evaluation.accuracy import accuracies, count_classes, mean_and_deviation, rank
from mote_fast.evaluation.predict import Predictions
from mote_fast.head.scores import pool_views, topk_accuracy, view_scores
from tests.conftest import GOLDEN
from tests.evaluation.made_up import failure_of

# Four listed videos of six classes; the third could not be read.
SCORES = torch.tensor([[0.0, 5, 4, 3, 2, 1], [5.0, 4, 3, 2, 1, 0], [9.0, 8, 7, 6, 5, 4]])
ROWS = torch.tensor([0, 1, -1, 2])
LABELS = torch.tensor([1, 4, 0, 5])


def as_predictions(running: Tensor, labels: Tensor, failed: int = 0) -> Predictions:
    """Predictions whose full-class score ranks the classes in their order, for every video."""
    videos, classes = running.shape
    features = torch.linspace(1, 0.1, classes).expand(videos, -1)
    failures = tuple(failure_of(videos + number) for number in range(failed))
    return Predictions(torch.arange(videos), labels, running.double(), features, torch.eye(classes), failures)


def test_by_hand() -> None:
    """Readable: 1 of 3 first, 2 of 3 among five. Of all: the unreadable one is wrong, so 1 and 2 of 4."""
    ranked = rank(SCORES, ROWS, LABELS)
    assert ranked.read.tolist() == [True, True, False, True]
    assert ranked.accuracy == pytest.approx((100 / 3, 200 / 3))
    assert ranked.accuracy_of_all == pytest.approx((25.0, 50.0))
    counts = count_classes(ranked, 6)
    assert counts.videos.tolist() == [1, 1, 0, 0, 1, 1]
    assert counts.read.tolist() == [0, 1, 0, 0, 1, 1]
    assert counts.correct.tolist() == [0, 1, 0, 0, 0, 0]


def test_nothing_readable_has_no_accuracy() -> None:
    """The accuracy over no readable video is NaN; over all listed videos it is 0."""
    ranked = rank(torch.empty(0, 3), torch.tensor([-1, -1]), torch.tensor([0, 2]))
    assert all(math.isnan(value) for value in ranked.accuracy)
    assert ranked.accuracy_of_all == (0.0, 0.0)


def test_both_scores_and_failures() -> None:
    """The two scores are separate, and failures count only over all videos."""
    found = accuracies(as_predictions(SCORES, torch.tensor([1, 0, 2]), failed=1))
    assert (found.videos, found.failed) == (4, 1)
    assert found.running == pytest.approx((200 / 3, 100.0))
    assert found.full_class == pytest.approx((100 / 3, 100.0))
    assert found.running_of_all == pytest.approx((50.0, 75.0))
    assert found.full_class_of_all == pytest.approx((25.0, 75.0))


@given(videos=st.integers(1, 20), classes=st.integers(1, 9), seed=st.integers(0, 1000), data=st.data())
def test_counts_add_up(videos: int, classes: int, seed: int, data: st.DataObject) -> None:
    """For any readable videos, the classes' counts sum to the split's, and the accuracies are the plain ones."""
    generator = torch.Generator().manual_seed(seed)
    read = torch.tensor(data.draw(st.lists(st.booleans(), min_size=videos, max_size=videos)))
    scores = torch.rand(int(read.sum()), classes, generator=generator)
    labels = torch.randint(classes, (videos,), generator=generator)
    rows = torch.full((videos,), -1)
    rows[read] = torch.arange(len(scores))
    ranked = rank(scores, rows, labels)
    counts = count_classes(ranked, classes)
    assert int(counts.videos.sum()) == videos
    assert int(counts.read.sum()) == len(scores)
    assert ranked.accuracy_of_all.top1 == pytest.approx(100 * int(counts.correct.sum()) / videos)
    if len(scores):
        expected = [topk_accuracy(scores, labels[read], top) for top in (1, 5)]
        assert ranked.accuracy == pytest.approx(expected)


def test_released_views(golden: dict[str, Any]) -> None:
    """The official running accuracy of the golden logits."""
    tensors = load_file(GOLDEN / "protocol.safetensors")
    scores = view_scores(tensors["views.logits"], golden["views"]["views"])
    found = accuracies(as_predictions(scores, tensors["views.labels"]))
    assert found.running == pytest.approx((golden["views"]["top1"], golden["views"]["top5"]), abs=1e-4)


def test_released_full_class(golden: dict[str, Any]) -> None:
    """The official full-class accuracy of the golden features."""
    tensors = load_file(GOLDEN / "protocol.safetensors")
    features, labels = pool_views(tensors["half.video"]), tensors["half.labels"]
    classes = torch.nn.functional.normalize(tensors["half.text"].float(), dim=-1)
    running = torch.zeros(len(labels), len(classes), dtype=torch.float64)
    found = accuracies(Predictions(torch.arange(len(labels)), labels, running, features, classes, ()))
    assert found.full_class == pytest.approx(golden["half_class"]["full"], abs=1e-4)


def test_mean_and_deviation_by_hand() -> None:
    """Deviations 4, 1, 5 from the mean 84 of three splits: the square root of 42 / 3."""
    assert mean_and_deviation([80.0, 83.0, 89.0]) == pytest.approx((84.0, math.sqrt(14)))
    assert mean_and_deviation([80.0]) == (80.0, 0.0)
