"""Ranks of retrieval: equal to counting by hand, with ties against the model, and their summary."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mote_fast.evaluation import retrieval_ranks as module
from mote_fast.evaluation.retrieval_ranks import retrieval_ranks, summarize_ranks


@st.composite
def tasks(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Few directions in the plane, so that ties are common; (videos, texts, video_of, read)."""
    count = draw(st.integers(1, 5))
    video_of = [*range(count), *draw(st.lists(st.integers(0, count - 1), max_size=6))]
    order = draw(st.permutations(video_of))
    directions = st.sampled_from([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.6, 0.8)])
    videos = torch.tensor(draw(st.lists(directions, min_size=count, max_size=count)))
    texts = torch.tensor(draw(st.lists(directions, min_size=len(order), max_size=len(order))))
    read = torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    return videos, texts, torch.tensor(order), read


def by_hand(videos: Tensor, texts: Tensor, video_of: Tensor, read: Tensor) -> tuple[list[int], list[int]]:
    """Both directions, one comparison at a time."""
    count, captions = len(videos), len(texts)

    def similarity(video: int, text: int) -> float:
        dot = float(videos[video].double() @ texts[text].double())
        # Cosines of these directions are 0.2 apart, or equal.
        return round(dot, 6) if read[video] else -math.inf

    to_video = []
    for text in range(captions):
        own = int(video_of[text])
        wrong = [video for video in range(count) if video != own and similarity(video, text) >= similarity(own, text)]
        to_video.append(1 + len(wrong))
    to_text = []
    for video in range(count):
        best = max(similarity(video, text) for text in range(captions) if int(video_of[text]) == video)
        wrong = [text for text in range(captions) if int(video_of[text]) != video and similarity(video, text) >= best]
        to_text.append(1 + len(wrong))
    return to_video, to_text


@given(task=tasks(), at_once=st.sampled_from([1, 7, 2**23]))
def test_ranks_equal_counting(task: tuple[Tensor, Tensor, Tensor, Tensor], at_once: int) -> None:
    """For any captions per video, ties, unread videos and size of the parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AT_ONCE", at_once)
        found = retrieval_ranks(*task)
    assert (found.text_to_video.tolist(), found.video_to_text.tolist()) == by_hand(*task)


def test_ranks_equal_the_usual_argsort() -> None:
    """Without ties, one caption a video: the place of the diagonal in each sorted row and column."""
    generator = torch.Generator().manual_seed(0)
    videos, texts = (F.normalize(torch.randn(50, 8, generator=generator), dim=-1) for _ in range(2))
    texts = F.normalize(texts + videos, dim=-1)
    similar = (texts @ videos.t()).numpy()
    found = retrieval_ranks(videos, texts, torch.arange(50))
    for ranks, matrix in ((found.text_to_video, similar), (found.video_to_text, similar.T)):
        places = [int(np.flatnonzero(np.argsort(-row) == at)[0]) + 1 for at, row in enumerate(matrix)]
        assert ranks.tolist() == places
    assert 1 < summarize_ranks(found.text_to_video).mean < 20


def test_equal_captions_tie_exactly() -> None:
    """Two videos with one caption in common are both charged, wherever the captions stand in the product."""
    generator = torch.Generator().manual_seed(1)
    texts = F.normalize(torch.randn(37, 64, generator=generator), dim=-1)
    texts[36] = texts[0]
    videos = texts[:36].clone()
    video_of = torch.tensor([*range(36), 5])
    found = retrieval_ranks(videos, texts, video_of)
    assert found.video_to_text.tolist() == [2, *[1] * 4, 1, *[1] * 30]
    assert found.text_to_video[36] == 36 or found.text_to_video[36] > 1


def test_constant_features_are_ranked_last() -> None:
    """A model that gives one feature for everything finds nothing."""
    ones = F.normalize(torch.ones(20, 4), dim=-1)
    found = retrieval_ranks(ones, ones, torch.arange(20))
    assert set(found.text_to_video.tolist()) == set(found.video_to_text.tolist()) == {20}
    assert summarize_ranks(found.text_to_video).recall == (0.0, 0.0, 0.0)


def test_summary() -> None:
    """Recall counts ranks up to K; the median of an even number lies between the middle two."""
    found = summarize_ranks(torch.tensor([1, 5, 6, 11]))
    assert found == (4, (25.0, 50.0, 75.0), 5.5, 5.75)
    assert summarize_ranks(torch.tensor([3, 1, 2])).median == 2.0
    nothing = summarize_ranks(torch.empty(0, dtype=torch.int64))
    assert nothing.queries == 0
    assert all(math.isnan(value) for value in (*nothing.recall, nothing.median, nothing.mean))
