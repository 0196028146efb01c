"""Scores and accuracies as the released evaluation computes them (spec section 7)."""

from __future__ import annotations

from torch import Tensor


def view_scores(logits: Tensor, views: int) -> Tensor:
    """Score videos from the logits of their views: softmax per view, mean over views, softmax again, as released.

    Args:
        logits: [B * views, C], the views of a video side by side. The released code passes cosines as they are.
        views: views per video.

    Returns:
        float32 [B, C], rows summing to 1. The ranking is that of the mean.
    """
    per_view = logits.float().softmax(-1).unflatten(0, (-1, views))
    return per_view.mean(1).softmax(-1)


def topk_accuracy(scores: Tensor, labels: Tensor, topk: int = 1) -> float:
    """Return the percentage of rows of ``scores [B, C]`` whose label (int64 [B]) is among the ``topk`` best."""
    best = scores.topk(min(topk, scores.shape[-1]), dim=-1).indices
    return 100.0 * (best == labels[:, None]).any(-1).float().mean().item()
