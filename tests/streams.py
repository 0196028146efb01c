"""Logits of both training streams of a head, for tests."""

from __future__ import annotations

from torch import Tensor

from mote_fast import Draws, VideoHead
from mote_fast.head.video_head import cosine_logits
from mote_fast.training.streams import stream_features


def stream_logits(head: VideoHead, frames: Tensor, classes: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Cosine logits [B, C] of the routed and of the merged stream."""
    routed, merged = stream_features(head, frames, draws.experts, draws.temperatures, draws.down_experts)
    return cosine_logits(routed, classes), cosine_logits(merged, classes)
