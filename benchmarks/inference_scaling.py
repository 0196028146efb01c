"""Scaling of inference: time and memory against experts, classes, frames, batch and videos, with fitted exponents.

All points of an axis take turns in one process, both arms. The exponent is that of a power law through all points; "at
the end" fits the last three, where fixed costs weigh least. The expected order is that of the work: an exponent below
it is fixed cost, one above it is not allowed for.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from end2end import video_arms
from harness import OFFICIAL, OURS, Arm, Workload, measure
from head import UNFOLDED, head_arms
from rows import Row
from setting import QUICK_VIEWS, Setting
from tower import tower_arms


class Axis(NamedTuple):
    """One quantity that grows: its sizes, the arms at a size, and turns as ``Workload`` has them."""

    sizes: tuple[int, ...]
    arms: Callable[[Setting, int], list[Arm]]
    turns: int
    warmup: int = 1


def _head(setting: Setting, x: int, experts: int | None = None, **sizes: int) -> list[Arm]:
    config = setting.heads[setting.preset]
    # Unfolded, ours merges at every call, as the official head does.
    names = (OFFICIAL, UNFOLDED, OURS)
    return head_arms(setting, replace(config, experts=experts or config.experts), x, names, **sizes)


AXES: Mapping[str, Axis] = {
    # Merging reads every expert, and a folded head has one.
    "experts": Axis((1, 2, 4, 8, 16), lambda setting, x: _head(setting, x, experts=x), 7),
    "classes": Axis((10, 100, 1000, 10_000), lambda setting, x: _head(setting, x, classes=x), 7),
    # Attention is quadratic in frames, but small beside its projections.
    "frames": Axis((4, 8, 16, 32, 64), lambda setting, x: _head(setting, x, frames=x), 7),
    "batch": Axis((1, 2, 4, 8, 16, 32, 64), lambda setting, x: _head(setting, x, views=x), 5),
    # A call takes seconds, and the model is warm by then.
    "frames of the tower": Axis((1, 2, 4, 8, 16), tower_arms, 2, warmup=0),
    "videos": Axis((1, 2, 4), lambda setting, x: video_arms(setting, QUICK_VIEWS, x), 2, warmup=0),
}


def inference_scaling(setting: Setting) -> Iterator[Row]:
    """Every axis, and the exponents of its arms."""
    for name in setting.stages or AXES:
        sizes, arms_at, turns, warmup = AXES[name]
        arms = [arm for size in sizes for arm in arms_at(setting, size)]
        rows = list(measure(Workload("inference_scaling", name, arms, turns, warmup), setting))
        yield from rows
        yield from exponents(rows)


def exponents(rows: Sequence[Row]) -> Iterator[Row]:
    """What power of an axis each arm's time grows as, beside the order of its work."""
    axis = rows[0].case
    for arm in dict.fromkeys(row.arm for row in rows):
        times = [row for row in rows if (row.arm, row.metric) == (arm, "time")]
        logs = [[math.log(row.x or 1) for row in times], [math.log(row.median) for row in times]]
        found = {
            "expected": 0.0 if (axis, arm) == ("experts", OURS) else 1.0,
            "exponent": statistics.linear_regression(*logs).slope,
            "at the end": statistics.linear_regression(*(each[-3:] for each in logs)).slope,
        }
        for metric, power in found.items():
            yield Row("inference_scaling", f"time as a power of {axis}", arm, metric, "", power)
