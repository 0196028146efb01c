"""Scores and accuracies as the official evaluation computes them (eq. (18) and eq. (19))."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# The official factor of cosines in the full-class score.
FULL_CLASS_SCALE = 100.0


def view_scores(logits: Tensor, views: int) -> Tensor:
    """Score videos from the logits of their views: softmax per view, mean over views, softmax again (eq. (18)).

    Args:
        logits: [B * views, C], the views of a video consecutive. The official code passes unscaled cosines.
        views: views per video.

    Returns:
        [B, C], float32 (float64 for float64 logits), rows summing to 1. The ranking is that of the mean.
    """
    return _mean_over_views(logits, views).softmax(-1)


def view_probabilities(cosines: Tensor, views: int, logit_scale: Tensor | float) -> Tensor:
    """Return label probabilities that rank as the official scores do, as sharp as CLIP's own.

    The official scores are nearly uniform, because they use unscaled cosines. Here ``p`` is
    ``softmax(logit_scale * log m)``, eq. (20), with ``m`` the mean over views of the softmax of cosines. The ranking is
    that of ``m`` (and so of ``view_scores``), and for one view ``p`` is ``softmax(logit_scale * cosine)``, as in CLIP.

    Args:
        cosines: [B * views, C], the views of a video consecutive.
        views: views per video.
        logit_scale: the factor itself, about 100 for trained models.

    Returns:
        float32 [B, C], rows summing to 1.
    """
    # In float64: the scale magnifies the rounding of m, whose entries differ little.
    return (logit_scale * _mean_over_views(cosines.double(), views).log()).softmax(-1).float()


def pool_views(features: Tensor) -> Tensor:
    """Average view features ``[N, V, d]``, each normalised, and normalise: float32 [N, d]."""
    return F.normalize(F.normalize(features.float(), dim=-1).mean(1), dim=-1)


def full_class_scores(features: Tensor, class_features: Tensor) -> Tensor:
    """Score videos by their pooled features, the other score of the official code (eq. (19)): softmax of 100 x cosine.

    Args:
        features: [N, d], from ``pool_views``.
        class_features: [C, d], class features of unit length.

    Returns:
        float64 [N, C], rows summing to 1.
    """
    return (FULL_CLASS_SCALE * features.double() @ class_features.double().t()).softmax(-1)


def topk_accuracy(scores: Tensor, labels: Tensor, topk: int = 1) -> float:
    """Return the percentage of rows of ``scores [B, C]`` whose label (int64 [B]) is among the ``topk`` best."""
    best = scores.topk(min(topk, scores.shape[-1]), dim=-1).indices
    return 100.0 * (best == labels[:, None]).any(-1).double().mean().item()


def _mean_over_views(logits: Tensor, views: int) -> Tensor:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.softmax(-1).unflatten(0, (-1, views)).mean(1)
