"""Models that were not trained for real videos: weights as they were drawn, and the shipped toy."""

from __future__ import annotations

import sys
import warnings

from torch import nn

from mote_fast.errors import UntrainedWarning

_REMEDY = "take a trained model, such as 'mote-b16-k400', or 'clip:ViT-B-16/openai'"

# What the shipped tiny model lacks.
DRAWN_ONLY = f"the model was trained on drawn videos, so its ranking of real ones means nothing; {_REMEDY}"

# Packages whose frames stand between a user's line and a warning.
_INSIDE = ("mote_fast", "torch")


def untrained_part(towers: nn.Module, head: nn.Module) -> str | None:
    """Return a sentence on the part of a model that no training has touched; None if there is none.

    Args:
        towers: the CLIP towers.
        head: the video head; mean pooling has nothing to train.
    """
    if _is_fresh(towers):
        return f"the CLIP towers have random weights, so the ranking means nothing; {_REMEDY}"
    if _is_fresh(head):
        return f"the temporal head is untrained, so the ranking means nothing; {_REMEDY}"
    return None


def warn_user(caution: str | None) -> None:
    """Warn with ``UntrainedWarning``, if there is a caution, at the line outside this library that led here.

    Python shows a warning once a line.
    """
    if caution is None:
        return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(caution, UntrainedWarning, stacklevel=level)


def _is_fresh(part: nn.Module) -> bool:
    """Whether all LayerNorms are as they were made; the first step of any optimiser changes them."""
    norms = [each for each in part.modules() if isinstance(each, nn.LayerNorm) and each.elementwise_affine]
    return bool(norms) and all(
        bool((each.weight == 1).all()) and (each.bias is None or not bool(each.bias.any())) for each in norms
    )
