"""None of these: when a window shows no label of the list.

The softmax over the labels says which of them fits best, and not whether one fits: it forgets the level of the cosines.
Rejection therefore compares the level with a threshold, or with what a background looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from mote_fast.errors import ConfigError, quoted
from mote_fast.timeline.time_segments import level_of

# Of ``background``: a threshold for the video's own levels; a given one; words that compete with the labels; none.
Background: TypeAlias = Literal["auto"] | float | Sequence[str] | None

Kind: TypeAlias = Literal["none", "auto", "cosine", "words"]


@dataclass(frozen=True)
class Rejecter:
    """What ``background`` asks for.

    Attributes:
        kind: "none"; "auto", a threshold of each video; "cosine", a given threshold; "words".
        threshold: of "cosine".
        words: of "words".
    """

    kind: Kind
    threshold: float | None = None
    words: tuple[str, ...] = ()


def read_background(background: Background) -> Rejecter:
    """Say what an argument ``background`` means.

    Raises:
        ConfigError: it is none of ``Background``.
    """
    if background is None:
        return Rejecter("none")
    if isinstance(background, str):
        if background == "auto":
            return Rejecter("auto")
        raise ConfigError(f"background must be 'auto', a least cosine, or a list of words, got {background!r}")
    if isinstance(background, int | float) and not isinstance(background, bool):
        if not -1 <= background <= 1:
            raise ConfigError(f"background, a least cosine, must lie in -1..1, got {background}")
        return Rejecter("cosine", float(background))
    values: list[Any] = list(background) if isinstance(background, Sequence) else []
    if values and all(isinstance(each, str) for each in values):
        return Rejecter("words", 0.0, tuple(values))
    raise ConfigError(f"background must be 'auto', a least cosine, or a list of words, got {quoted(background)}")


@dataclass(frozen=True)
class Threshold:
    """How a video's windows are rejected: those whose level is below ``value``; and how the value was found."""

    value: float | None
    how: str


def levels_of(rejecter: Rejecter, cosines: Tensor, background: Tensor) -> Tensor:
    """The level of each window, [W], which is compared with the threshold.

    Args:
        rejecter: what is asked for.
        cosines: [W, C], with the labels.
        background: [W, K], with the background.
    """
    level = level_of(cosines)
    return level - background.amax(1) if rejecter.kind == "words" else level


def otsu(levels: Tensor) -> tuple[float, float]:
    """Split levels [W] in two groups so that they differ least within them (Otsu).

    Returns:
        The threshold, halfway between the groups, and the share of the variance that lies between them, 0 to 1.
    """
    ordered = levels.double().sort().values
    count = len(ordered)
    if count < 2 or ordered[0] == ordered[-1]:
        return float(ordered[0]), 0.0
    below = torch.arange(1, count, dtype=torch.float64)
    sums = ordered.cumsum(0)
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (count - below)
    between = below * (count - below) / count**2 * (high - low) ** 2
    at = int(between.argmax())
    return float((ordered[at] + ordered[at + 1]) / 2), float(between[at] / ordered.var(correction=0))


def threshold_of(rejecter: Rejecter, levels: Tensor) -> Threshold:
    """Choose the threshold of a video."""
    if rejecter.kind == "none":
        return Threshold(None, "every window has a label")
    if rejecter.kind == "auto":
        value, share = otsu(levels)
        return Threshold(
            value, f"auto: Otsu's threshold of the video's largest cosines, {share:.0%} between the groups"
        )
    if rejecter.kind == "cosine":
        return Threshold(rejecter.threshold, "least cosine of the best label, as given")
    return Threshold(0.0, "the best label fits better than every background word")
