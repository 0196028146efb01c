"""The arms of the trade-off laboratory: the heads that are compared, and one run of an arm.

The image tower is frozen, so that all arms share it, and frame features are computed once. Training clips are not
augmented, so this is exact: train.py does the same with ``model.train_clip=false`` and ``data.augmentation=none``,
except for the views of an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.analysis.variants import Variant, tower_alone
from mote_fast.evaluation.accuracy import accuracies
from mote_fast.evaluation.predict import Predictions, score_videos
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.video_head import VideoHead
from mote_fast.runtime.seeding import generator_of, seed_of
from mote_fast.training.config.sections import OptimConfig
from mote_fast.training.losses import training_loss
from mote_fast.training.method import TrainingMethod
from mote_fast.training.optim import head_optimizer
from mote_fast.training.schedule import learning_rate, set_learning_rate

LAYERS = (1, 2, 4, 6)
EXPERTS = 4
BATCH = 48
WARMUP_EPOCHS = 2
# Learning rates tried for every arm; the best by close-set accuracy on a separate seed is used.
LEARNING_RATES = (3e-4, 1e-3, 3e-3)
# Gammas of the modulation: the paper's, and larger ones, which keep more of the temporal feature.
GAMMAS = (0.05, 0.2, 0.8, 3.2)

Kind = Literal["plain", "experts", "wmr", "mote"]
METHODS: Mapping[Kind, TrainingMethod] = {
    "plain": TrainingMethod(),
    "experts": TrainingMethod(regulariser="none"),
    "wmr": TrainingMethod(mse_weight=0.0),
    "mote": TrainingMethod(),
}


@dataclass(frozen=True)
class Data:
    """Frame features of a list: ``frames [N, V, T, d]``, ``labels`` int64 [N], and its classes' features [C, d]."""

    frames: Tensor
    labels: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Arm:
    """A head to train; ``kind`` names the parts of the method that it has."""

    kind: Kind
    layers: int

    @property
    def name(self) -> str:
        """Unique among the arms."""
        return f"{self.kind}-{self.layers}"


ARMS = (
    *(Arm(kind, layers) for kind in ("plain", "mote") for layers in LAYERS),
    Arm("experts", 4),
    Arm("wmr", 4),
)


def train_head(arm: Arm, train: Data, lr: float, epochs: int, seed: int, logit_scale: float) -> VideoHead:
    """Train one head on frame features with the library's own objective and optimiser.

    Every epoch draws one view of each video. All arms of a seed see the same batches.
    """
    torch.manual_seed(seed_of(seed, "weights"))
    width = train.frames.shape[-1]
    head = VideoHead(
        HeadConfig(width, max(1, width // 32), arm.layers, 0 if arm.kind == "plain" else EXPERTS), train.classes
    )
    optimizer, method = head_optimizer(head, lr), METHODS[arm.kind]
    schedule = OptimConfig(lr=lr, epochs=epochs, warmup_epochs=WARMUP_EPOCHS)
    order, draws = generator_of(seed, "order"), generator_of(seed, "routing")
    steps_per_epoch = math.ceil(len(train.labels) / BATCH)
    for epoch in range(epochs):
        views = torch.randint(train.frames.shape[1], (len(train.labels),), generator=order)
        for step, rows in enumerate(torch.randperm(len(train.labels), generator=order).split(BATCH)):
            set_learning_rate(optimizer, learning_rate(epoch + step / steps_per_epoch, schedule), clip_ratio=0.0)
            loss = training_loss(
                head,
                train.frames[rows, views[rows]],
                train.classes,
                train.labels[rows],
                logit_scale,
                method,
                method.draw(head.layers, head.experts, draws),
            )
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
    return head.eval()


@torch.no_grad()
def predictions_of(variant: Variant, data: Data, *, modulate: bool = False) -> Predictions:
    """The predictions of a variant for a list's videos, as in ``mote-fast eval``."""
    features = variant.features(data.frames.flatten(0, 1), data.classes if modulate else None)
    scores = score_videos(features, data.classes, data.frames.shape[1])
    return Predictions(torch.arange(len(data.labels)), data.labels, *scores, F.normalize(data.classes, dim=-1), ())


def top1(variant: Variant, data: Data, *, modulate: bool = False) -> float:
    """Top-1 accuracy by the running score, percent."""
    return accuracies(predictions_of(variant, data, modulate=modulate)).running.top1


def judge(head: VideoHead, lists: Mapping[str, Data]) -> dict[str, Any]:
    """Top-1 on every list, without modulation and with it at every gamma."""
    folded = head.fold()
    variant = Variant("merged", folded.features)
    found: dict[str, Any] = {"plain": {name: top1(variant, data) for name, data in lists.items()}, "modulated": {}}
    for gamma in GAMMAS:
        folded.set_inference(modulation=True, modulation_gamma=gamma)
        found["modulated"][str(gamma)] = {name: top1(variant, data, modulate=True) for name, data in lists.items()}
    return found


def judge_mean(head: VideoHead, lists: Mapping[str, Data]) -> dict[str, float]:
    """Top-1 of CLIP-Mean, which needs no training, on every list; ``head`` is any head of the same tower."""
    variant = tower_alone(head)
    return {name: top1(variant, data) for name, data in lists.items()}
