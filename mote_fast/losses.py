"""The training objective (spec section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from mote_fast.temporal import Streams


@dataclass(frozen=True)
class Loss:
    """The objective and its parts, each a scalar; ``total`` is what to differentiate."""

    total: Tensor
    routed: Tensor
    merged: Tensor
    mse: Tensor


def mote_loss(
    streams: Streams,
    labels: Tensor,
    logit_scale: Tensor | float,
    wmr_weight: float = 0.5,
    mse_weight: float = 0.1,
) -> Loss:
    """``CE(expert stream) + wmr_weight * CE(merged stream) + mse_weight * MSE``.

    Args:
        streams: what ``VideoHead.streams`` returned, logits [B, C].
        labels: int64 [B], class indices.
        logit_scale: the factor itself, ``exp`` of CLIP's parameter (about 100); a tensor is trained through.
        wmr_weight: weight of the merged stream (weight merging regularisation).
        mse_weight: weight of the distance between merged-stream features and frame features.

    Source: spec section 3; weights from the paper's training recipe.
    """
    routed = F.cross_entropy(logit_scale * streams.routed_logits.float(), labels)
    merged = F.cross_entropy(logit_scale * streams.merged_logits.float(), labels)
    return Loss(routed + wmr_weight * merged + mse_weight * streams.mse, routed, merged, streams.mse)
