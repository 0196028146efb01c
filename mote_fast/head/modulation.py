"""Temporal feature modulation: how far to trust the temporal features on unfamiliar classes (eq. (14) and eq. (15))."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# K and gamma of the paper (Tables 7b and 2f).
TOP_K = 5
GAMMA = 0.05


def modulation_factor(
    frame_features: Tensor,
    class_features: Tensor,
    train_class_features: Tensor,
    *,
    top_k: int = TOP_K,
    gamma: float = GAMMA,
) -> Tensor:
    """Weight each video's temporal features by the similarity of its classes to the classes of fine-tuning.

    ``u`` is the normalised mean over frames. Each of the ``top_k`` test classes most similar to ``u`` has a best
    similarity to the ``top_k`` fine-tuning classes most similar to ``u``; with ``m`` their mean, the factor is
    ``exp(-(1 - m) / gamma)``. Label sets with fewer names than ``top_k`` use all of them.

    Args:
        frame_features: [B, T, d], CLIP features of the frames, any floating dtype.
        class_features: [C, d], L2-normalised features of the test labels.
        train_class_features: [S, d], L2-normalised features of the fine-tuning labels.
        top_k: K of the paper.
        gamma: temperature of the exponential.

    Returns:
        float32 [B].
    """
    video = F.normalize(frame_features.float().mean(1), dim=-1)
    test_classes = _nearest(video, class_features.float(), top_k)
    tuned_classes = _nearest(video, train_class_features.float(), top_k)
    similarity = torch.bmm(test_classes, tuned_classes.transpose(1, 2))
    closeness = similarity.amax(-1).mean(-1)
    return torch.exp((closeness - 1.0) / gamma)


def _nearest(video: Tensor, class_features: Tensor, top_k: int) -> Tensor:
    """Return [B, k, d], the rows of ``class_features [C, d]`` most similar to each of ``video [B, d]``."""
    scores = video @ class_features.t()
    return class_features[scores.topk(min(top_k, class_features.shape[0]), dim=-1).indices]
