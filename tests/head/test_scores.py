"""Scores of videos from their views."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.head.scores import topk_accuracy, view_probabilities, view_scores
from tests.tolerances import assert_close


@given(videos=st.integers(1, 4), views=st.integers(1, 6), classes=st.integers(1, 30), seed=st.integers(0, 1000))
def test_probabilities_rank_as_the_released_scores(videos: int, views: int, classes: int, seed: int) -> None:
    """Sharpening keeps the order of every pair of labels with different official scores, and sums to 1."""
    cosines = torch.rand(videos * views, classes, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    sharp, released = view_probabilities(cosines, views, 100.0), view_scores(cosines.double(), views)
    assert_close(sharp.sum(-1), torch.ones(videos))
    higher = released[:, :, None] > released[:, None, :] + 1e-9
    assert bool((sharp[:, :, None] >= sharp[:, None, :])[higher].all())


def test_one_view_is_clips_probability() -> None:
    """With a single view the probability is the softmax of scaled cosines, to float precision."""
    cosines = torch.rand(5, 400) * 0.4
    assert_close(view_probabilities(cosines, 1, 100.0), (100.0 * cosines.double()).softmax(-1))


def test_topk_accuracy() -> None:
    """Percent of rows whose label is among the best; a ``topk`` above the number of classes takes all."""
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    labels = torch.tensor([2, 0])
    assert [topk_accuracy(scores, labels, k) for k in (1, 2, 9)] == [50.0, 100.0, 100.0]
