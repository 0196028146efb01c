"""Temporal localization: average precision of segments by their overlap with true ones, and the error of boundaries."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

# Overlaps at which the mean average precision is reported.
OVERLAPS = (0.3, 0.5, 0.7)


class Span(Protocol):
    """A labelled part of a video, in seconds."""

    @property
    def start(self) -> float:
        """Where it begins."""
        ...

    @property
    def end(self) -> float:
        """Where it ends."""
        ...

    @property
    def label(self) -> str:
        """Its label."""
        ...


class Found(Span, Protocol):
    """A segment that was found."""

    @property
    def score(self) -> float:
        """How sure it is; segments of all videos are ranked by it."""
        ...


class Localization(NamedTuple):
    """How well segments were found.

    Attributes:
        precision: overlap -> mean over the classes of the average precision, percent.
        boundary_error: mean distance in seconds of the boundaries of true segments from those of the best segment of
            the same label, over the true segments that one overlaps by half; NaN if none does.
        matched: share of the true segments that are matched so, percent.
        classes: number of classes that occur.
    """

    precision: dict[float, float]
    boundary_error: float
    matched: float
    classes: int


def overlap_of(one: Span, other: Span) -> float:
    """Intersection over union of two segments in time, 0 to 1."""
    shared = min(one.end, other.end) - max(one.start, other.start)
    if shared <= 0:
        return 0.0
    return shared / (max(one.end, other.end) - min(one.start, other.start))


def localization_of(
    found: Mapping[str, Sequence[Found]], true: Mapping[str, Sequence[Span]], overlaps: Sequence[float] = OVERLAPS
) -> Localization:
    """Judge the segments of videos as ActivityNet's evaluation does.

    For each class that occurs, the segments of all videos are ranked by their score. One is right if it overlaps a true
    segment of its class and video by the threshold that no better-ranked one has taken; of several the largest overlap
    counts. The average precision is the area under the precision, made to fall, over the recall.

    Args:
        found: the segments of each video, by its name.
        true: the true segments of each video; a video that is only in ``found`` has none.
        overlaps: thresholds.
    """
    names = sorted({each.label for spans in true.values() for each in spans})
    precision = {
        overlap: 100 * sum(_average_precision(name, found, true, overlap) for name in names) / max(1, len(names))
        for overlap in overlaps
    }
    errors: list[float] = []
    count = 0
    for video, spans in true.items():
        for span in spans:
            count += 1
            same = [each for each in found.get(video, ()) if each.label == span.label]
            best = max(same, key=lambda each: overlap_of(each, span), default=None)
            if best is not None and overlap_of(best, span) >= 0.5:
                errors += [abs(best.start - span.start), abs(best.end - span.end)]
    error = sum(errors) / len(errors) if errors else float("nan")
    return Localization(precision, error, 50 * len(errors) / max(1, count), len(names))


def _average_precision(
    name: str, found: Mapping[str, Sequence[Found]], true: Mapping[str, Sequence[Span]], overlap: float
) -> float:
    wanted = {video: [each for each in spans if each.label == name] for video, spans in true.items()}
    count = sum(map(len, wanted.values()))
    ranked = [(video, each) for video, spans in found.items() for each in spans if each.label == name]
    ranked.sort(key=lambda pair: -pair[1].score)
    taken: dict[str, set[int]] = defaultdict(set)
    right = 0
    recalls, precisions = [0.0], [0.0]
    for place, (video, each) in enumerate(ranked, 1):
        spans = wanted.get(video, [])
        order = sorted(range(len(spans)), key=lambda at: -overlap_of(each, spans[at]))
        match = next((at for at in order if at not in taken[video] and overlap_of(each, spans[at]) >= overlap), None)
        if match is not None:
            taken[video].add(match)
            right += 1
        recalls.append(right / count)
        precisions.append(right / place)
    for at in range(len(precisions) - 2, -1, -1):
        precisions[at] = max(precisions[at], precisions[at + 1])
    steps = [bisect_left(recalls, hit / count) for hit in range(1, right + 1)]
    return sum(precisions[at] for at in steps) / count
