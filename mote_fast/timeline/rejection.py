"""None of these: when a window, or a video, shows no label of the list.

The softmax over the labels says which of them fits best, and not whether one fits: it forgets the level of the cosines.
Rejection compares the level with a threshold, or lets what a background looks like compete with the labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.errors import ConfigError, quoted
from mote_fast.timeline.scorer import WindowScores

# A threshold for the levels; words that compete with the labels; embeddings of background, which do too; none.
Rejection: TypeAlias = Literal["auto"] | float | Sequence[str] | Tensor | None
# In a timeline also an example of the background, by its start and end in seconds.
Background: TypeAlias = Rejection | tuple[float, float]

Kind: TypeAlias = Literal["none", "auto", "level", "words", "vectors", "example"]

# Levels of two kinds of windows differ by at least so many logits, or one kind is all there is.
_APART = 3.0


@dataclass(frozen=True, eq=False)
class Rejecter:
    """What is asked for.

    Attributes:
        kind: "none"; "auto", a threshold of each video; "level", a given one; "words", "vectors" or "example", which
            compete with the labels.
        threshold: of "level"; 0 for what competes.
        words: of "words".
        vectors: of "vectors", [K, d], of unit length.
        example: of "example", start and end in seconds.
    """

    kind: Kind
    threshold: float = 0.0
    words: tuple[str, ...] = ()
    vectors: Tensor | None = None
    example: tuple[float, float] | None = None

    @property
    def competes(self) -> bool:
        """Whether the background competes with the labels, so that levels are differences of cosines."""
        return self.kind in ("words", "vectors", "example")


@dataclass(frozen=True)
class Threshold:
    """Levels below ``value`` show none of the labels; None if there is no such level. ``how`` says how it was found."""

    value: float | None
    how: str


def read_rejection(given: Background, width: int, name: str, *, timed: bool = False) -> Rejecter:
    """Say what an argument asks for.

    Args:
        given: the argument.
        width: d, of embeddings.
        name: of the argument, for messages.
        timed: whether (start, end) is an example.

    Raises:
        ConfigError: it is something else.
    """
    if given is None:
        return Rejecter("none")
    if isinstance(given, str) and given == "auto":
        return Rejecter("auto")
    if isinstance(given, int | float) and not isinstance(given, bool):
        check_level(name, given)
        return Rejecter("level", float(given))
    if isinstance(given, Tensor):
        vectors = given.detach()[None] if given.ndim == 1 else given.detach()
        if vectors.ndim != 2 or vectors.shape[1] != width or not len(vectors) or not bool(vectors.isfinite().all()):
            raise ConfigError(f"{name}: embeddings must be finite, [{width}] or [K, {width}], got {list(given.shape)}")
        return Rejecter("vectors", vectors=F.normalize(vectors.float(), dim=-1))
    values: list[Any] = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if values and all(isinstance(each, str) for each in values):
        return Rejecter("words", words=tuple(values))
    numbers = [float(each) for each in values if isinstance(each, int | float) and not isinstance(each, bool)]
    if timed and len(numbers) == len(values) == 2 and 0 <= numbers[0] < numbers[1] < math.inf:
        return Rejecter("example", example=(numbers[0], numbers[1]))
    example = ", (start, end) of an example in seconds" if timed else ""
    raise ConfigError(
        f"{name} must be 'auto', a least level, a list of words, embeddings{example}, or None; got {quoted(given)}"
    )


def check_level(name: str, level: object) -> None:
    """Raise ConfigError unless a level is one that a difference of cosines can have."""
    if not isinstance(level, int | float) or isinstance(level, bool) or not -2 <= level <= 2:
        raise ConfigError(f"{name}, a level of cosines, must lie in -2..2, got {quoted(level)}")


def levels_of(rejecter: Rejecter, cosines: Tensor, reference: Tensor, background: Tensor) -> Tensor:
    """How well the best label fits each window, [W].

    That is its cosine, less the mean cosine with the classes of fine-tuning, which says how much a window looks like
    anything at all; of what competes with the labels, less the largest cosine with it.

    Args:
        rejecter: what is asked for.
        cosines: [W, C], with the labels.
        reference: [W], the mean cosine with the classes of fine-tuning; 0 for a model that has none.
        background: [W, K], with the background.
    """
    return cosines.amax(1) - (background.amax(1) if rejecter.competes else reference)


def with_example(rejecter: Rejecter, scores: WindowScores) -> Tensor:
    """The cosines of windows with the background [W, K], those with the mean feature of an example included.

    Raises:
        ConfigError: the middle of no window lies in the example.
    """
    if rejecter.example is None:
        return scores.background
    start, end = rejecter.example
    times = torch.tensor(scores.times)
    inside = (times >= start) & (times <= end)
    if not bool(inside.any()):
        raise ConfigError(f"background: no window has its middle between {start:g} and {end:g} s; give more of it")
    pooled = scores.pooled.float()
    return pooled @ F.normalize(pooled[inside].mean(0), dim=-1)[:, None]


def otsu(levels: Tensor) -> tuple[float, float, float]:
    """Split levels [W] in two groups so that they differ least within them (Otsu).

    Returns:
        The threshold, halfway between the two groups, and the mean of the lower and of the upper one.
    """
    ordered = levels.double().sort().values
    count = len(ordered)
    if count < 2 or ordered[0] == ordered[-1]:
        only = float(ordered[0])
        return only, only, only
    below = torch.arange(1, count, dtype=torch.float64)
    sums = ordered.cumsum(0)
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (count - below)
    at = int((below * (count - below) * (high - low) ** 2).argmax())
    return float((ordered[at] + ordered[at + 1]) / 2), float(low[at]), float(high[at])


def threshold_of(rejecter: Rejecter, levels: Tensor, known: float | None, scale: float) -> Threshold:
    """Choose the threshold of a video.

    Args:
        rejecter: what is asked for.
        levels: [W], of its windows.
        known: the model's level, see ``VideoModel.reject_level``.
        scale: the model's scale of cosines.
    """
    if rejecter.kind == "none":
        return Threshold(None, "none: every window has a label")
    if rejecter.kind == "level":
        return Threshold(rejecter.threshold, f"the least level is {rejecter.threshold:g}, as given")
    if rejecter.competes:
        what = {"words": "background word", "vectors": "embedding of background", "example": "example of background"}
        return Threshold(0.0, f"the best label fits better than every {what[rejecter.kind]}")
    value, low, high = otsu(levels)
    if known is not None and not low < known < high:
        return Threshold(known, f"auto: one kind of windows, so the model's level {known:g}")
    if known is None and scale * (high - low) < _APART:
        return Threshold(None, "auto: one kind of windows, and the model has no level: every window has a label")
    return Threshold(value, f"auto: {value:.3g} divides this video's levels, of means {low:.3g} and {high:.3g}")
