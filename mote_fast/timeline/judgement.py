"""From the scores of a video's windows to its segments: smoothing, rejection, runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from mote_fast.timeline.rejection import Rejecter, Threshold, levels_of, threshold_of, with_example
from mote_fast.timeline.scorer import WindowScores
from mote_fast.timeline.time_segments import Segment, edges_of, find_segments, probabilities, smoothed


@dataclass(frozen=True)
class Rules:
    """How segments are found.

    Attributes:
        window: seconds that a window spans.
        hop: seconds from a window to the next.
        smooth: seconds over which cosines are averaged.
        min_seconds: see ``find_segments``, as ``several``.
        several: labels may overlap.
    """

    window: float
    hop: float
    smooth: float
    min_seconds: float
    several: bool = False


class Judgement(NamedTuple):
    """The levels [W] of a video's windows, the threshold for them, and the segments."""

    levels: Tensor
    threshold: Threshold
    segments: list[Segment]


def judge(
    scores: WindowScores,
    labels: Sequence[str],
    duration: float,
    rejecter: Rejecter,
    rules: Rules,
    *,
    known: float | None,
    scale: float,
) -> Judgement:
    """Find the segments of a video.

    Args:
        scores: of all its windows.
        labels: C names.
        duration: seconds.
        rejecter: what has none of the labels.
        rules: how segments are found.
        known: see ``threshold_of``, as ``scale``.
        scale: of the model's cosines.
    """
    width = 2 * round(rules.smooth / rules.hop / 2) + 1
    even, reference = smoothed(scores.cosines, width), smoothed(scores.reference, width)
    levels = levels_of(rejecter, even, reference, smoothed(with_example(rejecter, scores), width))
    threshold = threshold_of(rejecter, levels, known, scale)
    least = float("-inf") if threshold.value is None else threshold.value
    # The level of each label alone, or of the best.
    kept = (levels - even.amax(1))[:, None] + even >= least if rules.several else levels >= least
    edges = edges_of(scores.times, max(duration, scores.times[-1]))
    chances = probabilities(even, scale)
    segments = find_segments(
        chances,
        kept,
        edges,
        labels,
        min_seconds=rules.min_seconds,
        window=rules.window,
        several=rules.several,
    )
    return Judgement(levels, threshold, segments)
