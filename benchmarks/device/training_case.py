"""A head, a small model and their batches, the same numbers on every device."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mote_fast.data.loading.batch import Batch
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.video_head import VideoHead
from mote_fast.training.captured_step import CapturedStep
from mote_fast.training.losses import training_loss
from mote_fast.training.method import Draws, TrainingMethod
from mote_fast.training.optim import head_optimizer

if TYPE_CHECKING:
    from mote_fast.model.classifier import VideoClassifier

# Batch, frames and the head's sizes.
Sizes = tuple[int, int, HeadConfig]

# The heads of ViT-B/16 and ViT-L/14 as trained in the paper.
HEADS: dict[str, Sizes] = {"B/16": (64, 8, HeadConfig(512, 8, 4, 4)), "L/14": (48, 8, HeadConfig(768, 12, 6, 4))}
DRY_HEADS: dict[str, Sizes] = {"small": (2, 3, HeadConfig(32, 2, 2, 3))}
CLASSES, LOGIT_SCALE = 400, 100.0
METHOD = TrainingMethod()


class HeadCase:
    """A head with a batch of frame features, on a device; draws are tensors that stay where they are."""

    def __init__(self, batch: int, frames: int, config: HeadConfig, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(1)
        torch.manual_seed(0)
        self.head = VideoHead(config).to(device)
        self.features = torch.randn(batch, frames, config.embed_dim, generator=generator).to(device).requires_grad_()
        self.classes = torch.randn(CLASSES, config.embed_dim, generator=generator).to(device)
        self.labels = torch.randint(CLASSES, (batch,), generator=generator).to(device)
        self._generator = generator
        self.draws = self.new_draws().to(device)

    def new_draws(self) -> Draws:
        """Draw for another step."""
        return METHOD.draw(self.head.layers, self.head.experts, self._generator)

    def take(self, draws: Draws) -> None:
        """Overwrite the draws in place, so that a captured step reads them."""
        for mine, given in ((self.draws.experts, draws.experts), (self.draws.temperatures, draws.temperatures)):
            assert isinstance(mine, Tensor)
            mine.copy_(torch.as_tensor(given))

    def loss(self, draws: Draws | None = None) -> Tensor:
        """The objective of the current draws, or of the given ones."""
        given = (self.features, self.classes, self.labels, LOGIT_SCALE)
        return training_loss(self.head, *given, draws=draws or self.draws).total

    def gradients(self, draws: Draws | None = None) -> list[Tensor]:
        """The loss, and its gradients of the features and of every parameter, dense."""
        loss = self.loss(draws)
        return [loss.detach(), *torch.autograd.grad(loss, [self.features, *self.head.parameters()])]


def captured_step_of(case: HeadCase, precision: torch.dtype | None = None) -> CapturedStep:
    """The case's step as ``CapturedStep`` takes it: captured from the fourth call on."""
    clips, frames, _ = case.features.shape
    case.head.set_train_class_features(case.classes)
    optimizer = head_optimizer(case.head, lr=1e-4, capturable=True)
    return CapturedStep(case.head, optimizer, LOGIT_SCALE, clips, frames, precision=precision)


def small_model(device: torch.device, seed: int = 0) -> VideoClassifier:
    """The smallest architecture, as training sets it up; made on the CPU, so that all devices start alike."""
    from mote_fast.model.checkpoint import create_model

    torch.manual_seed(seed)
    model = trainable(create_model("ViT-test", frames=3))
    model.head.set_train_class_features(torch.randn(5, model.clip.embed_dim))
    return copy.deepcopy(model).to(device)


def trainable(model: VideoClassifier) -> VideoClassifier:
    """Train the head, the image tower and the logit scale, as the paper does."""
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    model.clip.model.visual.requires_grad_(True)
    model.clip.model.logit_scale.requires_grad_(True)
    return model.eval()


def small_batches(count: int, device: torch.device, size: int = 4) -> list[Batch]:
    """Batches for ``small_model``."""
    generator = torch.Generator().manual_seed(1)
    return [
        Batch(
            torch.randn(size, 3, 3, 64, 64, generator=generator).to(device),
            torch.randint(5, (size,), generator=generator).to(device),
            torch.arange(size),
        )
        for _ in range(count)
    ]
