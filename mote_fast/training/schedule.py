"""The learning rate as a function of the fractional epoch (eq. (23))."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    # It knows the activations of open_clip's towers, which a head on stored features does without.
    from mote_fast.training.config.sections import OptimConfig

# The official code sets the rate at the first batch of an epoch and then at every tenth.
REFRESHED_EVERY = 10


def learning_rate(epoch: float, optim: OptimConfig) -> float:
    """Return the head's learning rate: linear warm-up from zero, then a cosine to zero, or steps down at milestones.

    Args:
        epoch: fractional, counted from 0; half way through the third epoch is 2.5.
        optim: the peak rate and the shape of the schedule.
    """
    if epoch < optim.warmup_epochs:
        return optim.lr * epoch / optim.warmup_epochs
    if optim.schedule == "multistep":
        return optim.lr * optim.decay ** sum(epoch >= milestone for milestone in optim.milestones)
    progress = (epoch - optim.warmup_epochs) / (optim.epochs - optim.warmup_epochs)
    return optim.lr * 0.5 * (1.0 + math.cos(math.pi * progress))


def refreshed_epoch(epoch: int, batch: int, batches_per_epoch: int) -> float:
    """Return the fractional epoch at which the rate of a batch was last set, as in the official code.

    Args:
        epoch: counted from 0.
        batch: batch of this epoch, counted from 0.
        batches_per_epoch: batches of one process.
    """
    last = (batch + 1) // REFRESHED_EVERY * REFRESHED_EVERY - 1
    return epoch + max(last, 0) / batches_per_epoch


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float, clip_ratio: float) -> None:
    """Set the rate of the head's group to ``lr``, and that of CLIP's group, if any, to ``clip_ratio`` times ``lr``.

    The rates of a capturable optimiser are tensors, which keep their place on the device.
    """
    for group, ratio in zip(optimizer.param_groups, (1.0, clip_ratio), strict=False):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr * ratio)
        else:
            group["lr"] = lr * ratio
