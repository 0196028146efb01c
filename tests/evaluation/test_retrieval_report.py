"""The report of retrieval: readable and all videos, failures, and the written files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mote_fast.data.items import UNLABELLED, VideoItem
from mote_fast.errors import ConfigError
from mote_fast.evaluation.captions import CaptionedVideos
from mote_fast.evaluation.predict import Embeddings
from mote_fast.evaluation.retrieval_report import retrieval_document, retrieval_lines, write_retrieval
from tests.evaluation.made_up import failure_of

VIDEO_OF = torch.tensor([0, 1, 1, 2])
LISTED = CaptionedVideos(
    "list", [VideoItem(f"{at}.mp4", UNLABELLED) for at in range(3)], ["a", "b", "c", "d"], VIDEO_OF
)
AXES = torch.eye(4)[:3]
# Caption "b" is nearer to video 2 than to its own; "c" is video 1's own direction.
TEXTS = F.normalize(torch.tensor([[1.0, 0, 0, 0], [0, 0.5, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0]]), dim=-1)


def test_document() -> None:
    """Every caption is a query of one direction, every video of the other."""
    document = retrieval_document(LISTED, Embeddings(torch.arange(3), AXES, ()), TEXTS, {"dataset": "made up"})
    assert (document["videos"], document["captions"], document["failed"]) == (3, 4, 0)
    entry = document["text_to_video"]["readable"]
    assert entry == {"queries": 4, "R@1": 75.0, "R@5": 100.0, "R@10": 100.0, "median_rank": 1.0, "mean_rank": 1.25}
    assert document["video_to_text"]["readable"]["R@1"] == 100.0
    assert document["text_to_video"]["all"] == entry
    assert len(retrieval_lines(document)) == 4


def test_an_unread_video(tmp_path: Path) -> None:
    """Readable videos are ranked among themselves; over all, an unread one and its captions come last."""
    videos = Embeddings(torch.tensor([0, 2]), AXES[[0, 2]], (failure_of(1),))
    document = retrieval_document(LISTED, videos, TEXTS, {"dataset": "made up"})
    readable, every = (document["text_to_video"][of] for of in ("readable", "all"))
    assert (readable["queries"], readable["R@1"]) == (2, 100.0)
    assert (every["queries"], every["R@1"], every["mean_rank"]) == (4, 50.0, 2.0)
    assert document["video_to_text"]["all"]["mean_rank"] == pytest.approx((1 + 3 + 1) / 3)
    write_retrieval(tmp_path, document)
    assert json.loads((tmp_path / "result.json").read_text()) == document
    report = (tmp_path / "report.md").read_text()
    assert "| text_to_video | all | 4 | 50.00 |" in report
    assert "video1.mp4: made to fail" in report


def test_nothing_could_be_read() -> None:
    """There are no readable queries, and the figures are null; over all videos everything is last."""
    videos = Embeddings(torch.empty(0, dtype=torch.int64), torch.empty(0, 4), tuple(map(failure_of, range(3))))
    document = retrieval_document(LISTED, videos, TEXTS, {"dataset": "made up"})
    assert document["text_to_video"]["readable"]["R@1"] is None
    assert document["text_to_video"]["all"]["mean_rank"] == 3.0
    assert "none" in "\n".join(retrieval_lines(document))


def test_a_skipped_video_is_an_error() -> None:
    """A loader that loses a video would otherwise change the figures unseen."""
    with pytest.raises(ConfigError, match="silently skipped video 1"):
        retrieval_document(LISTED, Embeddings(torch.tensor([0, 2]), AXES[[0, 2]], ()), TEXTS, {})
