"""Fits of measured curves: the exponent of a power law, and a line with its share of explained variance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Points = Sequence[tuple[float, float]]


class Line(NamedTuple):
    """``y = intercept + slope x``, least squares; ``r2`` is the share of the variance that it explains."""

    intercept: float
    slope: float
    r2: float


def line(points: Points) -> Line:
    """Fit a line.

    Raises:
        ValueError: fewer than two different x.
    """
    if len({x for x, _ in points}) < 2:
        raise ValueError(f"a line takes two different x, got {[x for x, _ in points]}")
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    intercept = mean_y - slope * mean_x
    total = sum((y - mean_y) ** 2 for _, y in points)
    residual = sum((y - intercept - slope * x) ** 2 for x, y in points)
    return Line(intercept, slope, 1.0 - residual / total if total > 0 else 1.0)


def exponent(points: Points, last: int | None = None) -> float:
    """The exponent p of ``y = c x^p``: the slope of the line through the logarithms.

    Args:
        points: x and y positive.
        last: fit the last so many points only, where a fixed cost has lost its weight; all by default.
    """
    chosen = points if last is None else points[-last:]
    return line([(math.log(x), math.log(y)) for x, y in chosen]).slope
