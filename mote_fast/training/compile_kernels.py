"""Compiles the kernels of a run's steps before the first one, which would compile them one after the other."""

from __future__ import annotations

import importlib

import torch

from mote_fast.head.experts import TemporalExperts
from mote_fast.head.video_head import VideoHead
from mote_fast.ops.implementations import implementation_for
from mote_fast.training.method import TrainingMethod
from mote_fast.training.optim.factors import stays_factored


def compile_kernels(head: VideoHead, method: TrainingMethod, tokens: int, dtype: torch.dtype, passes: int) -> None:
    """Compile the experts' kernels for a step of a method, where Triton serves and both streams are trained.

    Args:
        head: the head on its device; all layers have the same sizes.
        method: the objective.
        tokens: clips times frames of a batch.
        dtype: in which autocast runs products; float32 without.
        passes: batches of a step.
    """
    layers = [module for module in head.modules() if isinstance(module, TemporalExperts)]
    if not layers or method.expert_data == "all" or method.regulariser == "none":
        return
    weight, width = layers[0].weight, layers[0].embed_dim
    if implementation_for(weight.device, weight.dtype, dtype) != "triton":
        return
    factors = passes if stays_factored(weight.shape[0], passes) else 0
    importlib.import_module("mote_fast.kernels.warm_up").compile_step(weight, width, tokens, dtype, factors)
