"""The measurement that chooses the embedding of an index."""

from __future__ import annotations

import pytest
import torch
from search_embedding import embeddings, measures

from mote_fast.head.head_config import HeadConfig
from mote_fast.head.video_head import VideoHead


def test_measures_by_hand() -> None:
    """One query finds its two videos first; the other finds its video last."""
    videos = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.6, 0.4]])
    queries = torch.tensor([[1.0, 0.0], [0.8, 0.1]])
    first, average = measures(videos, torch.tensor([0, 0, 1]), queries)
    assert first == 50.0
    assert average == pytest.approx(100 * (1 + 1 / 3) / 2)


def test_every_embedding_has_unit_length() -> None:
    """One of each kind for each video; mean pooling alone knows no difference between them."""
    head = VideoHead(HeadConfig(16, 1, 0, 0, header="mean"))
    found = embeddings(head, torch.randn(5, 3, 4, 16, generator=torch.Generator().manual_seed(0)), torch.eye(3, 16))
    assert len(found) == 4
    for each in found.values():
        assert torch.equal(each, found["frame mean"])
        torch.testing.assert_close(each.norm(dim=-1), torch.ones(5))
