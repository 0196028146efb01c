"""Text-video retrieval: the rank of each caption's video, and of each video's best caption.

Both count how many wrong candidates are at least as similar as the right one, plus 1: a tie counts against the model,
so that features that are all alike are ranked last and not first. A video's own captions never count against each
other: its rank is that of the most similar of them among the captions of the other videos.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Similarities held at a time, float64.
_AT_ONCE = 2**23

# Recall at K: the K of the tables of text-video retrieval.
RECALL_AT = (1, 5, 10)


class Ranks(NamedTuple):
    """Ranks from 1: int64 [C], each caption's video among the videos; int64 [V], each video's best caption."""

    text_to_video: Tensor
    video_to_text: Tensor


class RankSummary(NamedTuple):
    """Summary of the ranks of ``queries`` queries.

    Attributes:
        queries: their number.
        recall: percentage of ranks up to K, for each K of ``RECALL_AT``; NaN without queries.
        median: the median rank, halfway between the middle two of an even number; NaN without queries.
        mean: the mean rank; NaN without queries.
    """

    queries: int
    recall: tuple[float, ...]
    median: float
    mean: float


def retrieval_ranks(videos: Tensor, texts: Tensor, video_of: Tensor, read: Tensor | None = None) -> Ranks:
    """Rank all videos for each caption, and all captions for each video, by cosine.

    Args:
        videos: [V, d], unit length.
        texts: [C, d], unit length.
        video_of: int64 [C], each caption's video; every video has a caption.
        read: bool [V], False for a video that could not be read: it is less similar to every caption than all others,
            whatever its row of ``videos`` holds, and as a query it finds its captions last. None: all were read.
    """
    # Equal features are multiplied once: in another place of a product they could differ in the last bit, and not tie.
    few_videos, video_row = videos.double().unique(dim=0, return_inverse=True)
    few_texts, text_row = texts.double().unique(dim=0, return_inverse=True)
    unread = torch.zeros(len(videos), dtype=torch.bool) if read is None else ~read
    text_to_video = [torch.empty(0, dtype=torch.int64)]
    for part in _parts(len(texts), len(videos)):
        similar = (few_videos @ few_texts[text_row[part]].t())[video_row]
        similar[unread] = -torch.inf
        own = similar[video_of[part], torch.arange(similar.shape[1])]
        # The own video is at least as similar as itself: it counts for the 1.
        text_to_video.append((similar >= own).sum(0))
    video_to_text = [torch.empty(0, dtype=torch.int64)]
    for part in _parts(len(videos), len(texts)):
        similar = (few_videos[video_row[part]] @ few_texts.t())[:, text_row]
        similar[unread[part]] = -torch.inf
        own = video_of[None] == torch.arange(part.start, part.stop)[:, None]
        best = similar.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
        video_to_text.append(1 + ((similar >= best) & ~own).sum(1))
    return Ranks(torch.cat(text_to_video), torch.cat(video_to_text))


def summarize_ranks(ranks: Tensor) -> RankSummary:
    """Summarise the ranks of queries, int64 [N]."""
    if not len(ranks):
        return RankSummary(0, (float("nan"),) * len(RECALL_AT), float("nan"), float("nan"))
    recall = tuple(100.0 * int((ranks <= limit).sum()) / len(ranks) for limit in RECALL_AT)
    found: list[int] = ranks.tolist()
    return RankSummary(len(found), recall, float(statistics.median(found)), statistics.fmean(found))


def _parts(queries: int, candidates: int) -> Iterator[slice]:
    size = max(1, _AT_ONCE // max(candidates, 1))
    for start in range(0, queries, size):
        yield slice(start, min(start + size, queries))
