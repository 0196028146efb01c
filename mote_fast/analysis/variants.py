"""The variants that the analyses compare: a head's experts merged, each alone, and no temporal layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from torch import Tensor

from mote_fast.errors import ConfigError
from mote_fast.head.video_head import VideoHead

MERGED = "merged"
TOWER = "tower alone"
CLIP_MEAN = "CLIP-Mean"


class Variant(NamedTuple):
    """One way to turn frame features into features that are compared with classes.

    Attributes:
        name: "merged", "expert 0" and so on, "tower alone", or that of another model, such as "CLIP-Mean".
        features: maps frames [B, T, d] and class features [C, d], or None for no modulation, to features [B, T, d]; see
            ``VideoHead.features``.
    """

    name: str
    features: Callable[[Tensor, Tensor | None], Tensor]


def expert_variants(head: VideoHead) -> list[Variant]:
    """Return the merged model, then each expert alone in every layer.

    If up and down projections are routed separately, expert i takes projection i of both.

    Raises:
        ConfigError: the head has fewer than two experts, or does not merge them at inference.
    """
    if head.experts < 2:
        raise ConfigError(
            f"experts cannot be compared: this head has {head.experts} (header {head.config.header!r}); "
            "give a MoTE checkpoint whose experts are not yet folded into one"
        )
    if head.config.aggregation != "merge":
        raise ConfigError(
            f"experts are compared with their merge, but this head's aggregation is {head.config.aggregation!r}; "
            "call head.set_inference(aggregation='merge') and save the model"
        )
    # Folded, so that the merge is done once.
    merged = Variant(MERGED, head.fold().features)
    return [merged, *(Variant(f"expert {each}", partial(head.features, expert=each)) for each in range(head.experts))]


def tower_alone(head: VideoHead) -> Variant:
    """Return the variant without temporal layers: the unchanged frame features of the head's own tower."""
    mean = VideoHead(replace(head.config, header="mean"))
    return Variant(TOWER, mean.features)
