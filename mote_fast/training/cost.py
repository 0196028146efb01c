"""What a run will cost on a CPU, said before its first step."""

from __future__ import annotations

import math

from mote_fast.evaluation.cpu_cost import FrameCost, about, frame_cost
from mote_fast.model.classifier import VideoClassifier
from mote_fast.training.build import Loaders
from mote_fast.training.config.train_config import TrainConfig
from mote_fast.training.state import RunProgress
from mote_fast.training.step import Arithmetic


def cost_of_run(
    config: TrainConfig,
    model: VideoClassifier,
    loaders: Loaders,
    progress: RunProgress,
    steps: int,
    arithmetic: Arithmetic,
    processes: int,
) -> str | None:
    """Return a line on the time that the rest of a run will take; None on a GPU, or if it is soon done.

    Args:
        config: the settings.
        model: the model that is trained.
        loaders: of this process.
        progress: what is done.
        steps: optimiser steps of the whole run.
        arithmetic: its precision.
        processes: that share the work.
    """
    data, optim = config.data, config.optim
    if data.features is not None:
        return None
    clip = data.batch_size * optim.accumulation * data.frames
    # The backward pass takes twice as long as the forward one.
    passes = (3 + optim.grad_checkpointing) if config.model.train_clip else 1
    trained = (steps - progress.step) * clip * passes
    validated = _frames_of_list(config, loaders) * _validations_left(config, progress) // processes
    cost = frame_cost(model, trained + validated, arithmetic.autocast())
    if cost is None:
        return None
    once = loaders.training_videos * data.frames + _frames_of_list(config, loaders)
    return (
        f"this run will take {cost}; with the image tower frozen, `mote-fast prepare features` encodes each video "
        f"once, about {about(FrameCost(cost.seconds, once).total)}, and the head then trains in little time "
        "(docs/training.md)"
    )


def _frames_of_list(config: TrainConfig, loaders: Loaders) -> int:
    """Frames of one validation, over all processes."""
    clips, crops = map(int, config.data.views.split("x"))
    return loaders.validation_videos * config.data.frames * clips * crops


def _validations_left(config: TrainConfig, progress: RunProgress) -> int:
    every, left = config.run.eval_every, config.optim.epochs - progress.epoch
    return math.ceil(left / every) if every and config.run.max_steps is None else 0
