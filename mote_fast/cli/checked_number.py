"""Numbers of the command line, checked when it is parsed, before a model is loaded or a video is read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mote_fast.errors import MoteError, quoted


class NumberError(MoteError):
    """The number of an option is malformed or out of range; no ``ValueError``, whose text ``argparse`` replaces."""


@dataclass(frozen=True)
class Number:
    """The type of an option's value, for ``argparse``.

    Attributes:
        option: its name, for messages.
        whole: whether it is an integer.
        least: the smallest value.
        most: the largest value.
        above: a bound that the value exceeds, in place of ``least``.
        below: a bound that it stays below, in place of ``most``.
    """

    option: str
    whole: bool = True
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __call__(self, text: str) -> int | float:
        """Read the number.

        Raises:
            NumberError: the text is no such number.
        """
        try:
            value = int(text) if self.whole else float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            kind = "a whole number" if self.whole else "a number"
            raise NumberError(f"{self.option} must be {kind}, got {quoted(text)}")
        for fits, bound in (
            (self.least is None or value >= self.least, f"at least {self.least}"),
            (self.most is None or value <= self.most, f"at most {self.most}"),
            (self.above is None or value > self.above, f"above {self.above}"),
            (self.below is None or value < self.below, f"below {self.below}"),
        ):
            if not fits:
                raise NumberError(f"{self.option} must be {bound}, got {quoted(text)}")
        return value
