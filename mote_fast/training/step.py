"""One optimiser step: forward and backward over its batches, gradients averaged over processes, one update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from mote_fast.clip.tower_compiler import TowerCompiler
from mote_fast.data.loading.batch import Batch
from mote_fast.head.video_head import VideoHead
from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.compiling import Compile
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.runtime.seeding import generator_of
from mote_fast.training.config.sections import AUTOCAST_DTYPES, Precision
from mote_fast.training.losses import Loss, training_loss
from mote_fast.training.method import Draws, TrainingMethod, draws_on
from mote_fast.training.optim import HeadAdamW
from mote_fast.training.optim.reduce import same_routes

# Frames per recomputation of the image tower; bounds the activations in memory. ViT-L/14 then fits 24 GiB
# (docs/training.md); with 64 frames it does not.
FRAMES_PER_RECOMPUTATION = 32

# The objective and its parts, as ``StepResult.losses`` has them and the metrics name them.
LOSSES = ("loss", "routed", "merged", "mse")


class Objective(nn.Module):
    """From pixels to the training loss: the module that DistributedDataParallel wraps.

    Args:
        model: towers and head; the head holds the features of the training classes.
        method: the objective and its draws.
        train_clip: whether gradients reach the image tower and the logit scale.
        grad_checkpointing: recompute the image tower's activations in the backward pass, some frames at a time.
        compile: run the image tower through torch.compile; "auto" does so on a GPU, from the first step on, and goes on
            without it after one warning where the compiler is missing or fails. The head stays eager: it is a few
            percent of the work, and its expert gradients would be dense if compiled.
        cached: batches hold the frames' features, and the image tower is not run.
    """

    def __init__(
        self,
        model: VideoClassifier,
        method: TrainingMethod,
        *,
        train_clip: bool = True,
        grad_checkpointing: bool = False,
        compile: Compile = False,
        cached: bool = False,
    ) -> None:
        super().__init__()
        self.clip = model.clip
        self.head = model.head
        self.method = method
        self.train_clip = train_clip
        self.grad_checkpointing = grad_checkpointing
        self.cached = cached
        self.compiler = TowerCompiler(type(self.clip).run_vision_tower)
        self.compiler.choose(False if cached else compile)
        self.compiler.start(self.clip.device)

    def forward(self, pixels: Tensor, labels: Tensor, draws: Draws) -> Loss:
        """Return the loss of a batch.

        Args:
            pixels: [B, T, 3, S, S], normalised; with ``cached`` the frames' features [B, T, d].
            labels: int64 [B], or [B, C] as in ``training_loss``.
            draws: the random choices of this pass.
        """
        with torch.set_grad_enabled(self.train_clip and torch.is_grad_enabled()):
            frames = pixels if self.cached else self.encode(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
            logit_scale = self.clip.logit_scale
        class_features = self.head.train_class_features
        assert class_features is not None
        return training_loss(self.head, frames, class_features, labels, logit_scale, self.method, draws)

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode frames ``[N, 3, S, S]`` as features [N, d]."""
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            return self._encode(pixels)
        # Towers draw nothing: they are in evaluation mode. One graph serves all parts, also a shorter last one, so that
        # no part is recomputed by another graph than ran it.
        run = partial(checkpoint, self._encode, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([run(part) for part in pixels.split(FRAMES_PER_RECOMPUTATION)])

    def _encode(self, pixels: Tensor) -> Tensor:
        return self.compiler.encode(self.clip, pixels, many=False)


class Arithmetic:
    """The precision of a run: the dtype of autocast, and the loss scaler that float16 needs.

    Weights, optimiser and reductions are float32 in all three. PyTorch's process-wide switch for TensorFloat32 is set
    too: off for "fp32", on with half precision.

    Attributes:
        device: the device of the run.
        scaler: the loss scaler; it does nothing but for float16.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.device = device
        self._dtype = AUTOCAST_DTYPES[precision]
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
        torch.backends.cudnn.allow_tf32 = precision != "fp32"

    def autocast(self) -> AbstractContextManager[Any]:
        """A context in which autocast runs suitable operators in the chosen precision."""
        return nullcontext() if self._dtype is None else torch.autocast(self.device.type, self._dtype)


@dataclass(frozen=True)
class StepResult:
    """The losses and gradient norm of one step: means over its batches, detached, of this process alone.

    Attributes:
        losses: float32 [4], see ``LOSSES``.
        gradient_norm: scalar, before clipping and over all processes; None if gradients are not clipped.
    """

    losses: Tensor
    gradient_norm: Tensor | None


def distribute(objective: Objective, optimizer: HeadAdamW, world: ProcessGroup) -> nn.Module:
    """Wrap the objective for several processes: the optimiser averages the experts' gradients, DDP all others.

    DDP would need the dense gradient of every expert; ``HeadAdamW.all_reduce_gradients`` sends the factors.
    """
    if world.size == 1:
        return objective
    experts = {id(weight) for weight in optimizer.expert_weights}
    ignored = [name for name, parameter in objective.named_parameters() if id(parameter) in experts]
    # Training changes no buffer, so buffers need not be sent with every step.
    ignored += [name for name, _ in objective.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(objective, ignored)
    # DDP broadcasts the remaining parameters.
    world.share([weight.detach() for weight in optimizer.expert_weights])
    return DistributedDataParallel(objective, gradient_as_bucket_view=True)


def draws_of_step(
    head: VideoHead, method: TrainingMethod, batches: int, *, seed: int, step: int, rank: int | None
) -> list[Draws]:
    """Draw the experts and temperatures of each batch of a step: a function of the named integers alone.

    Args:
        head: the head that is trained.
        method: the distribution of the draws.
        batches: batches of the step.
        seed: seed of the run.
        step: optimiser steps before this one.
        rank: rank of this process; None draws the same on all processes, unlike the official code.
    """
    parts = (seed, "routing", step) if rank is None else (seed, "routing", step, rank)
    generator = generator_of(*parts)
    return [method.draw(head.layers, head.experts, generator) for _ in range(batches)]


def train_step(
    objective: nn.Module,
    optimizer: HeadAdamW,
    batches: Iterator[Batch],
    draws: Sequence[Draws],
    arithmetic: Arithmetic,
    *,
    clip_gradient: float | None = None,
    world_size: int = 1,
    sync_routing: bool = False,
) -> StepResult:
    """Take one optimiser step over the next ``len(draws)`` batches; processes exchange gradients once.

    Args:
        objective: the result of ``distribute``.
        optimizer: optimiser of the head and, if trained, the image tower; it holds no gradients before and after.
        batches: one batch is taken per draw; the gradient is that of their mean loss.
        draws: the random choices of each batch.
        arithmetic: precision and loss scaler.
        clip_gradient: largest norm of the whole gradient; None does not clip.
        world_size: number of processes that take the step together.
        sync_routing: whether all processes have the same draws; otherwise they compare them before the first pass.
    """
    # In every case as many as the optimiser has: a head whose experts have dense gradients has none.
    layers = len(optimizer.expert_weights)
    agreed = [True] * layers if sync_routing or world_size == 1 else same_routes(draws, layers)
    if arithmetic.device.type == "cuda":
        # Numbers would be copied one by one, layer by layer, and the host would wait for each copy.
        draws = draws_on(draws, arithmetic.device)
    losses = []
    for number, draw in enumerate(draws, 1):
        batch = next(batches)
        last = number == len(draws)
        with nullcontext() if last or not isinstance(objective, DistributedDataParallel) else objective.no_sync():
            with arithmetic.autocast():
                loss: Loss = objective(batch.pixels, batch.labels, draw)
            if last and world_size > 1:
                optimizer.average_in_backward(agreed)
            arithmetic.scaler.scale(loss.total / len(draws)).backward()
        parts = (loss.total, loss.routed, loss.merged, loss.mse)
        losses.append(torch.stack([part.detach().float() for part in parts]))
    if world_size > 1:
        optimizer.all_reduce_gradients(experts_only=True)
    arithmetic.scaler.unscale_(optimizer)
    norm = None if clip_gradient is None else optimizer.clip_grad_norm_(clip_gradient)
    arithmetic.scaler.step(optimizer)
    arithmetic.scaler.update()
    # Free the gradients before validation or checkpointing.
    optimizer.zero_grad()
    return StepResult(torch.stack(losses).mean(0), norm)
