"""Average precision: against its definition word for word, with ties, unreadable videos and classes without videos."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data.items import VideoItem
from mote_fast.errors import ShapeError
from mote_fast.evaluation.average_precision import Relevance, average_precisions, mean_over_classes, positives_of


def by_definition(scores: list[int], right: list[bool]) -> float:
    """The sum over thresholds of the recall gained times the precision, each counted from all videos anew."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        above = [hit for score, hit in zip(scores, right, strict=True) if score >= threshold]
        recall = sum(above) / sum(right)
        total += (recall - before) * sum(above) / len(above)
        before = recall
    return total


@given(rows=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12))
def test_any_ranking_matches_the_definition(rows: list[tuple[int, bool]]) -> None:
    """Few distinct scores, so that most rankings have ties, among and between right and wrong videos."""
    scores, right = [list(part) for part in zip(*rows, strict=True)]
    found = average_precisions(torch.tensor(scores)[:, None].double(), torch.tensor(right)[:, None])
    if any(right):
        assert float(found[0]) == pytest.approx(by_definition(scores, right))
    else:
        assert math.isnan(float(found[0]))


def test_a_published_example() -> None:
    """The example in the documentation of scikit-learn's function: 0.83."""
    scores = torch.tensor([0.1, 0.4, 0.35, 0.8]).double()
    found = average_precisions(scores[:, None], torch.tensor([False, False, True, True])[:, None])
    assert float(found[0]) == pytest.approx(0.8333, abs=1e-4)


def test_classes_without_videos_and_unreadable_videos() -> None:
    """A class without a video has no part in the mean; an unreadable video is never found, or left out."""
    items = [VideoItem("a", 0, others=(2,)), VideoItem("b", 2), VideoItem("c", 0)]
    positives = positives_of(items, 4)
    assert positives.tolist() == [[True, False, True, False], [False, False, True, False], [True, False, False, False]]
    scores = torch.tensor([[0.9, 0, 0.1, 0], [0.5, 0, 0.2, 0], [9.0, 0, 9.0, 0]]).double()
    found = Relevance(scores, positives, torch.tensor([True, True, False]))
    # Class 0: a is first, c is never found. Class 2: b, a.
    assert found.percentages == {"map": 100.0}
    assert found.percentages_of_all["map"] == pytest.approx(100 * (1 / 2 + 1) / 2)
    nothing = Relevance(scores, positives, torch.zeros(3, dtype=torch.bool))
    assert nothing.percentages_of_all == {"map": 0.0}
    assert math.isnan(nothing.percentages["map"])
    assert math.isnan(mean_over_classes(torch.tensor([torch.nan])))
    with pytest.raises(ShapeError, match=r"\[3, 4\] and \[3, 3\]"):
        average_precisions(scores, positives[:, :3])
