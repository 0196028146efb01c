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
    window: float = 0.0,
    several: bool = False,
) -> list[Segment]:
    """Find the segments of a video.

    One label at a time: where something is shown at all, short gaps are closed. What begins and ends there gets the
    label of the windows that lie wholly inside, because those at its ends see half of it. It is divided where the label
    changes, if both sides last as long as a window.

    Args:
        scores: [W, C], probabilities, smoothed.
        kept: bool [W], or bool [W, C] with ``several``: where a label may be shown.
        edges: see ``edges_of``.
        labels: C names.
        min_seconds: a gap that is shorter is closed, and a segment that is shorter afterwards is left out.
        window: seconds that a window spans.
        several: labels may overlap: each has segments of its own, where it is not far below the best.

    Returns:
        The segments by their start, those of one start by their index.
    """
    found: list[Segment] = []
    if several:
        shown = kept & (scores >= SHARE_OF_BEST * scores.amax(1, keepdim=True))
        indices: list[int] = shown.any(0).nonzero().flatten().tolist()
        for index in indices:
            for first, end in _runs(shown[:, index].tolist(), edges, min_seconds):
                score = float(scores[first:end, index].mean())
                found.append(Segment(edges[first], edges[end], labels[index], index, score))
        return sorted(found, key=lambda each: (each.start, each.index))
    for run in _runs(kept.tolist(), edges, min_seconds):
        for first, end, index, score in _divided(scores, run, edges, window, min_seconds):
            found.append(Segment(edges[first], edges[end], labels[index], index, score))
    return found


def _divided(
    scores: Tensor, run: tuple[int, int], edges: Sequence[float], window: float, min_seconds: float
) -> list[tuple[int, int, int, float]]:
    """The segments of a run of windows: first, end, the label and its score."""
    first, end = run
    middles = [(edges[at] + edges[at + 1]) / 2 for at in range(first, end)]
    low, high = edges[first] + window / 2, edges[end] - window / 2
    inner = [first + at for at, middle in enumerate(middles) if low <= middle <= high] or [(first + end) // 2]
    begin, stop = inner[0], inner[-1] + 1
    best: list[int] = scores[begin:stop].argmax(1).tolist()
    parts: list[tuple[int, int, int]] = []
    at = begin
    while at < stop:
        after = at
        while after < stop and best[after - begin] == best[at - begin]:
            after += 1
        # The windows at the ends of the run see half of what is there, and belong to their neighbors.
        left, right = first if at == begin else at, end if after == stop else after
        if edges[right] - edges[left] >= max(window, min_seconds):
            if parts and parts[-1][2] == best[at - begin]:
                parts[-1] = parts[-1][0], after, parts[-1][2]
            else:
                parts.append((at, after, best[at - begin]))
        at = after
    if len(parts) < 2:
        mean = scores[begin:stop].mean(0)
        index = int(mean.argmax())
        return [(first, end, index, float(mean[index]))]
    # What lies between two parts is divided between them.
    cuts = [first, *((one[1] + other[0] + 1) // 2 for one, other in itertools.pairwise(parts)), end]
    return [
        (left, right, index, float(scores[at:after, index].mean()))
        for (left, right), (at, after, index) in zip(itertools.pairwise(cuts), parts, strict=True)
    ]


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


def probabilities(cosines: Tensor, logit_scale: float) -> Tensor:
    """CLIP's probability of each label in each window, float32 [W, C]."""
    parts = [(logit_scale * part.double()).softmax(-1).float() for part in cosines.split(1024)]
    return torch.cat(parts)
