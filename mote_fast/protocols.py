"""Evaluation protocols on features: half-class splits (spec section 7)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import LongTensor, Tensor
from torch.nn import functional as F

from mote_fast.metrics import topk_accuracy

# Splits of the half-class protocol.
HALF_CLASS_SPLITS = 10


class Accuracy(NamedTuple):
    """Percentages of videos whose label ranks first, and among the first five."""

    top1: float
    top5: float


def half_class_splits(classes: int, splits: int = HALF_CLASS_SPLITS) -> list[LongTensor]:
    """Return the class indices of each split: the first half of a permutation seeded with the split's number."""
    # RandomState(k) draws what np.random.seed(k) followed by np.random.permutation draws, without global state.
    halves = (np.random.RandomState(seed).permutation(classes)[: classes // 2] for seed in range(splits))
    return [torch.from_numpy(np.sort(half)) for half in halves]  # pyright: ignore[reportReturnType]


def feature_accuracy(video: Tensor, text: Tensor, labels: Tensor) -> Accuracy:
    """Accuracy from features: the cosine of the mean of normalised view features with each class.

    Args:
        video: [N, V, d], one feature per view.
        text: [C, d], class features.
        labels: int64 [N], in [0, C).
    """
    pooled = F.normalize(F.normalize(video.float(), dim=-1).mean(1), dim=-1)
    scores = pooled @ F.normalize(text.float(), dim=-1).t()
    return Accuracy(topk_accuracy(scores, labels, 1), topk_accuracy(scores, labels, 5))


def half_class_accuracy(video: Tensor, text: Tensor, labels: Tensor) -> list[Accuracy]:
    """Accuracy on each half-class split: only its videos, told apart only from its classes.

    Args: as ``feature_accuracy``.
    """
    results: list[Accuracy] = []
    for classes in half_class_splits(len(text)):
        kept = torch.isin(labels, classes)
        results.append(feature_accuracy(video[kept], text[classes], torch.searchsorted(classes, labels[kept])))
    return results
