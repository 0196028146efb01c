"""What a stage hands to the clock: arms on the same inputs, the first of which is the baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

RELEASED = "released"
# Largest relative difference of outputs that count as equal.
EQUAL = 1e-4


@dataclass(frozen=True)
class Arm:
    """One way to do the work of a workload.

    Attributes:
        name: unique within the workload.
        call: the work; a tensor that it returns is compared with the baseline arm's.
        clips: views of T frames that one call deals with; 0 where the work is not counted in clips.
        scale: whole work over the part that a call measures; times are multiplied by it.
        flops: floating-point operations of one call, products and sums counted apart.
        nbytes: bytes that one call cannot avoid moving: weights, inputs and outputs, once each.
        tolerance: largest relative difference to the baseline that counts as equal; None where it is not comparable.
        preparation: seconds that were spent before the arm could be called, on compiling or exporting.
        yardstick: measures the machine, not a way to do the work.
    """

    name: str
    call: Callable[[], Any]
    clips: float = 0.0
    scale: float = 1.0
    flops: float | None = None
    nbytes: float | None = None
    tolerance: float | None = EQUAL
    preparation: float = 0.0
    yardstick: bool = False


@dataclass(frozen=True)
class Workload:
    """Arms that take turns; ``note`` is printed under their table.

    ``rounds`` and ``warmup`` bound the time of what takes seconds a call.
    """

    stage: str
    name: str
    arms: list[Arm]
    rounds: int
    warmup: int = 2
    note: str = ""

    @property
    def baseline(self) -> Arm:
        """What ratios are taken against."""
        return self.arms[0]
