"""Evaluation protocols on features: half-class splits (docs/method.md, Views)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import LongTensor, Tensor

# Splits of the half-class protocol.
HALF_CLASS_SPLITS = 10


class Accuracy(NamedTuple):
    """Percentages of videos whose label ranks first, and in the top five."""

    top1: float
    top5: float


def half_class_splits(classes: int, splits: int = HALF_CLASS_SPLITS) -> list[LongTensor]:
    """Return the class indices of each split: the first half of a permutation seeded with the split's number."""
    # RandomState(k) draws the same as np.random.seed(k) followed by np.random.permutation, without global state.
    halves = (np.random.RandomState(seed).permutation(classes)[: classes // 2] for seed in range(splits))
    return [torch.from_numpy(np.sort(half)) for half in halves]  # pyright: ignore[reportReturnType]


class HalfClassTask(NamedTuple):
    """One split of the half-class protocol: its classes, its videos, and their labels among those classes.

    Attributes:
        classes: int64 [H], ascending class indices.
        videos: bool [N], which videos belong to them.
        labels: int64 [number of those videos], indices into ``classes``.
    """

    classes: LongTensor
    videos: Tensor
    labels: Tensor


def half_class_tasks(labels: Tensor, classes: int) -> list[HalfClassTask]:
    """Return the half-class splits of videos with ``labels``, int64 [N] in [0, classes)."""
    tasks: list[HalfClassTask] = []
    for half in half_class_splits(classes):
        videos = torch.isin(labels, half)
        tasks.append(HalfClassTask(half, videos, torch.searchsorted(half, labels[videos])))
    return tasks
