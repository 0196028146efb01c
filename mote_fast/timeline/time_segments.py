"""From the scores of windows to segments: when a label begins and ends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# With several labels at a time: a label is shown where its probability is at least this share of the best one's.
SHARE_OF_BEST = 0.2


@dataclass(frozen=True)
class Segment:
    """A part of a video with a label.

    Attributes:
        start: seconds of presentation time, from 0 at the first frame.
        end: seconds, where the label ends.
        label: the label.
        index: its index in the given list.
        score: mean probability of the label over the windows of the segment.
    """

    start: float
    end: float
    label: str
    index: int
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Return the values by their names, which JSON can hold."""
        return dict(vars(self))


def smoothed(values: Tensor, windows: int) -> Tensor:
    """Average values [W, ...] of windows over ``windows`` neighbors, an odd number; fewer at the ends."""
    if windows < 2 or not values.numel():
        return values
    rows = values.flatten(1).T if values.ndim > 1 else values[None]
    mean = F.avg_pool1d(rows, windows, stride=1, padding=windows // 2, count_include_pad=False)
    return mean.T.unflatten(1, values.shape[1:]) if values.ndim > 1 else mean[0]


def edges_of(times: Sequence[float], duration: float) -> list[float]:
    """The W + 1 times at which one window gives way to the next: halfway between their middles."""
    inner = [(first + second) / 2 for first, second in itertools.pairwise(times)]
    return [0.0, *inner, duration]


def find_segments(
    scores: Tensor,
    kept: Tensor,
    edges: Sequence[float],
    labels: Sequence[str],
    *,
    min_seconds: float = 0.0,
    several: bool = False,
) -> list[Segment]:
    """Find the segments of a video.

    Args:
        scores: [W, C], probabilities, smoothed.
        kept: bool [W], or bool [W, C] with ``several``: where a label may be shown.
        edges: see ``edges_of``.
        labels: C names.
        min_seconds: a gap in a label that is shorter is closed, and a segment that is shorter afterwards is left out.
        several: labels may overlap; otherwise each time has one label at most.

    Returns:
        The segments by their start, those of one start by their index.
    """
    best = scores.argmax(1)
    if several:
        shown = kept.expand_as(scores) if kept.ndim > 1 else kept[:, None].expand_as(scores)
        shown = shown & (scores >= SHARE_OF_BEST * scores.gather(1, best[:, None]))
    else:
        shown = F.one_hot(best, scores.shape[1]).bool() & (kept if kept.ndim == 1 else kept.any(1))[:, None]
    found: list[Segment] = []
    indices: list[int] = shown.any(0).nonzero().flatten().tolist()
    for index in indices:
        for first, end in _runs(shown[:, index].tolist(), edges, min_seconds):
            score = float(scores[first:end, index].mean())
            found.append(Segment(edges[first], edges[end], labels[index], index, score))
    found.sort(key=lambda each: (each.start, each.index))
    return found if several else _one_at_a_time(found)


def _runs(shown: Sequence[bool], edges: Sequence[float], min_seconds: float) -> list[tuple[int, int]]:
    """The runs of windows [first, end) in which a label is shown, short gaps closed and short runs left out."""
    runs: list[tuple[int, int]] = []
    at = 0
    while at < len(shown):
        end = at
        while end < len(shown) and shown[end] == shown[at]:
            end += 1
        if shown[at]:
            if runs and edges[at] - edges[runs[-1][1]] < min_seconds:
                runs[-1] = runs[-1][0], end
            else:
                runs.append((at, end))
        at = end
    return [(first, end) for first, end in runs if edges[end] - edges[first] >= min_seconds]


def _one_at_a_time(found: Sequence[Segment]) -> list[Segment]:
    """Leave out what closing gaps covers: a segment that begins before the one before it has ended."""
    kept: list[Segment] = []
    for each in found:
        if kept and each.start < kept[-1].end:
            if each.end - each.start > kept[-1].end - kept[-1].start:
                kept[-1] = each
            continue
        kept.append(each)
    return kept


def probabilities(cosines: Tensor, logit_scale: float) -> Tensor:
    """CLIP's probability of each label in each window, float32 [W, C]."""
    parts = [(logit_scale * part.double()).softmax(-1).float() for part in cosines.split(1024)]
    return torch.cat(parts)
