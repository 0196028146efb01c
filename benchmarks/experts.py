"""The expert operators and the head's training step against the official, per-expert implementation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import flops
import torch
from harness import OFFICIAL, OURS, Arm, Workload, gemm, measure
from official import OfficialHead, merge_linears, stacks_of
from rows import Row
from setting import Setting
from torch import Tensor

from mote_fast import TrainingMethod, VideoHead, head_optimizer, training_loss
from mote_fast.head.experts import merge_weights
from mote_fast.head.head_config import HeadConfig
from mote_fast.ops import operators

FRAMES, CLASSES = 8, 400
LEARNING_RATE, WEIGHT_DECAY, LOGIT_SCALE = 5e-5, 0.2, 100.0
# Draws of experts and temperatures, which steps go through again and again.
DRAWS = 64
COPY, TEMPERATURE = "copy", 2.4


class TrainingStep:
    """Forward with loss, backward with the frames' gradient, and AdamW; a call does all three.

    Heads of the same sizes have the same weights, inputs and draws, whichever arm they are.
    """

    def __init__(self, arm: str, config: HeadConfig, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        head = VideoHead(config).to(device)
        self.model = head if arm == OURS else OfficialHead(head)
        self.optimizer: torch.optim.Optimizer = (
            head_optimizer(head, LEARNING_RATE, WEIGHT_DECAY)
            if arm == OURS
            else torch.optim.AdamW(self.model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        )
        # What was drawn up to here depends on the arm.
        torch.manual_seed(1)
        self.frames = torch.randn(batch, FRAMES, config.embed_dim).to(device).requires_grad_()
        self.classes = torch.randn(CLASSES, config.embed_dim).to(device)
        self.labels = torch.randint(CLASSES, (batch,)).to(device)
        generator = torch.Generator().manual_seed(2)
        method = TrainingMethod()
        self.draws = itertools.cycle([method.draw(config.layers, config.experts, generator) for _ in range(DRAWS)])
        self.loss: Tensor = torch.zeros(())

    def __call__(self) -> None:
        self.forward()
        self.backward()
        self.update()

    def forward(self) -> None:
        given = self.frames, self.classes, self.labels, LOGIT_SCALE
        model, draws = self.model, next(self.draws)
        self.loss = (
            training_loss(model, *given, draws=draws).total
            if isinstance(model, VideoHead)
            else model.loss(*given, draws.experts, draws.temperatures)
        )

    def backward(self) -> None:
        self.loss.backward()

    def update(self) -> None:
        """AdamW, after which no gradient is held."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.frames.grad = None

    def gradient_bytes(self) -> int:
        """Bytes of every gradient that the update will consume, factored ones included."""
        held = (param.grad for group in self.optimizer.param_groups for param in group["params"])
        return sum(grad.nbytes for grad in held if grad is not None)


def merge(setting: Setting) -> Iterator[Row]:
    """Merge every layer's experts once."""
    for name, config in setting.heads.items():
        yield from measure(Workload("kernels", f"merge, {name}", merge_arms(config, setting.device), 40), setting)


def merge_arms(config: HeadConfig, device: torch.device) -> list[Arm]:
    """Both ways to merge; "copy" moves the bytes that merging must, reading half of them and writing half."""
    stacks, theirs = _experts_of(config, device)
    weights = merge_weights(config.experts, TEMPERATURE).to(device)
    halves = [stack.new_empty((stack.numel() + stack.shape[1]) // 2) for stack in stacks]
    targets = [torch.empty_like(half) for half in halves]

    @torch.no_grad()
    def ours() -> None:
        for stack in stacks:
            operators.merge_experts(stack, weights)

    @torch.no_grad()
    def official() -> None:
        for block in theirs.layers():
            merge_linears(block.mlp.up, weights)
            merge_linears(block.mlp.down, weights)

    def copy() -> None:
        for half, target in zip(halves, targets, strict=True):
            target.copy_(half)

    return [Arm(OFFICIAL, official), Arm(OURS, ours), Arm(COPY, copy)]


def experts(setting: Setting) -> Iterator[Row]:
    """Forward and backward of one layer's experts, both streams."""
    for name, config in setting.heads.items():
        for batch in _batches(setting):
            arms = expert_arms(config, batch, setting.device)
            yield from measure(Workload("kernels", f"experts, {name}, batch", arms, 20), setting)


def expert_arms(config: HeadConfig, batch: int, device: torch.device) -> list[Arm]:
    """The official experts and ours, with factored and with dense gradients."""
    (stack, *_), theirs = _experts_of(config, device)
    layer = next(theirs.layers()).mlp
    weights = merge_weights(config.experts, TEMPERATURE).to(device)
    index = torch.tensor(1, device=device)
    inputs = [torch.randn(batch, FRAMES, config.embed_dim, device=device).requires_grad_() for _ in range(2)]
    grads = [torch.randn_like(x) for x in inputs]
    # Under a probe the gradient of the stack is the two rows alone.
    probe = torch.empty(1, device=device).expand(2, stack.shape[1]).requires_grad_()

    def ours(wanted: Tensor, probe: Tensor | None) -> object:
        y = operators.expert_pair_ffn(inputs[0], inputs[1], stack, weights, index, probe)
        return torch.autograd.grad(y, [*inputs, wanted], grads)

    def official() -> object:
        y = layer.routed(inputs[0], 1), layer.merged(inputs[1], weights)
        return torch.autograd.grad(y, [*inputs, *layer.parameters()], grads)

    return [
        Arm(OFFICIAL, official, batch, batch),
        Arm(OURS, partial(ours, probe, probe), batch, batch),
        Arm("mote_fast, dense gradient", partial(ours, stack, None), batch, batch),
    ]


def _experts_of(config: HeadConfig, device: torch.device) -> tuple[list[Tensor], OfficialHead]:
    torch.manual_seed(0)
    head = VideoHead(config).to(device)
    return stacks_of(head), OfficialHead(head)


def step(setting: Setting) -> Iterator[Row]:
    """The whole training step at every batch."""
    for name, config in setting.heads.items():
        for batch in _batches(setting):
            yield from training("kernels", name, config, batch, setting)


def train(setting: Setting) -> Iterator[Row]:
    """Stage "train" of ``throughput``: the training step of one model, 8 views unless asked otherwise."""
    for batch in setting.batches or (8,):
        yield from training("train", setting.preset, setting.heads[setting.preset], batch, setting)


def training(benchmark: str, name: str, config: HeadConfig, batch: int, setting: Setting) -> Iterator[Row]:
    """Forward, loss, backward and AdamW of the head, in float32 whatever the dtype of inference."""
    setting = replace(setting, dtype=torch.float32)
    # Two streams, backward twice the forward, and merging with its backward.
    work = 2 * 3 * flops.head(batch, FRAMES, config.embed_dim, config.layers, CLASSES)
    work += 2 * flops.merge(config.embed_dim, config.layers, config.experts)
    arms = [
        Arm(arm, TrainingStep(arm, config, batch, setting.device), batch, batch, flops=work) for arm in (OFFICIAL, OURS)
    ]
    arms.append(gemm(batch * FRAMES, config.embed_dim, setting, batch))
    yield from measure(Workload(benchmark, step_name(name), arms, 12), setting)


def step_name(name: str) -> str:
    """The case of a model's training step."""
    return f"training step, {name}, batch"


def _batches(setting: Setting) -> tuple[int, ...]:
    return setting.batches or ((2,) if setting.quick else (2, 8, 64))


STAGES = {"merge": merge, "experts": experts, "step": step}


def kernels(setting: Setting) -> Iterator[Row]:
    """The operators, and the step that they are part of."""
    for name in setting.stages or STAGES:
        yield from STAGES[name](setting)
