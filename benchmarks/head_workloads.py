"""The workloads of benchmarks/kernels.py and of its pytest-benchmark entry points: name -> arms on the same weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from eager import EagerHead, loss_of, merge_linears
from torch import Tensor

from mote_fast import TrainingMethod, VideoHead, head_optimizer
from mote_fast.head.experts import merge_weights
from mote_fast.head.head_config import HeadConfig
from mote_fast.ops import operators

Arms = dict[str, Callable[[], object]]

FRAMES, CLASSES, EXPERTS = 8, 400, 4
LEARNING_RATE, WEIGHT_DECAY = 5e-5, 0.2
TEMPERATURE = 2.4
LOGIT_SCALE = 100.0


@dataclass(frozen=True)
class Preset:
    """Sizes of a head (docs/method.md, Sizes)."""

    embed_dim: int
    heads: int
    layers: int


PRESETS = {"ViT-B-16": Preset(512, 8, 4), "ViT-L-14": Preset(768, 12, 6), "tiny": Preset(32, 2, 2)}


@dataclass(frozen=True)
class Setting:
    """Where and at what size a workload runs."""

    preset: str
    batch: int
    device: torch.device
    experts: int = EXPERTS

    def head(self) -> VideoHead:
        torch.manual_seed(0)
        sizes = PRESETS[self.preset]
        return VideoHead(HeadConfig(sizes.embed_dim, sizes.heads, sizes.layers, self.experts)).to(self.device)

    def tensor(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device)


def merge(setting: Setting) -> Arms:
    """Merge every layer's experts once; "copy" moves the same bytes, reading half of them and writing half."""
    head = setting.head()
    eager = EagerHead(head)
    weights = merge_weights(setting.experts, TEMPERATURE).to(setting.device)
    stacks = [block.mlp.weight for block in head.blocks]
    halves = [torch.empty((stack.numel() + stack.shape[1]) // 2, device=setting.device) for stack in stacks]
    targets = [torch.empty_like(half) for half in halves]

    @torch.no_grad()
    def ours() -> None:
        for stack in stacks:
            operators.merge_experts(stack, weights)

    @torch.no_grad()
    def theirs() -> None:
        for block in eager.blocks:
            merge_linears(block.mlp.up, weights)
            merge_linears(block.mlp.down, weights)

    def copy() -> None:
        for half, target in zip(halves, targets, strict=True):
            target.copy_(half)

    return {"mote_fast": ours, "eager": theirs, "copy": copy}


def experts(setting: Setting) -> Arms:
    """Forward and backward of one layer's experts, both streams; gradients dense and factored."""
    head = setting.head()
    eager = EagerHead(head).blocks[0].mlp
    mixture = head.blocks[0].mlp
    weights = merge_weights(setting.experts, TEMPERATURE).to(setting.device)
    index = torch.tensor(1, device=setting.device)
    inputs = [setting.tensor(setting.batch, FRAMES, head.embed_dim).requires_grad_() for _ in range(2)]
    grads = [torch.randn_like(x) for x in inputs]
    # Under a probe the gradient of the stack is the two rows alone.
    probe = torch.empty(1, device=setting.device).expand(2, mixture.weight.shape[1]).requires_grad_()

    def dense() -> object:
        return torch.autograd.grad(
            operators.expert_pair_ffn(*inputs, mixture.weight, weights, index), [*inputs, mixture.weight], grads
        )

    def factored() -> object:
        return torch.autograd.grad(
            operators.expert_pair_ffn(*inputs, mixture.weight, weights, index, probe), [*inputs, probe], grads
        )

    def theirs() -> object:
        outputs = (eager.routed(inputs[0], 1), eager.merged(inputs[1], weights))
        return torch.autograd.grad(outputs, [*inputs, *eager.parameters()], grads)

    return {"mote_fast": factored, "mote_fast, dense gradient": dense, "eager": theirs}


def step(setting: Setting) -> Arms:
    """Forward, loss, backward and AdamW of the whole head, gradients of the frames included."""
    ours = setting.head()
    theirs = EagerHead(ours)
    return {
        "mote_fast": _step(setting, ours, head_optimizer(ours, LEARNING_RATE, WEIGHT_DECAY)),
        "eager": _step(
            setting, theirs, torch.optim.AdamW(theirs.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        ),
    }


def _step(setting: Setting, head: VideoHead | EagerHead, optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """One training step a call; every head of the same sizes sees the same draws."""
    sizes = PRESETS[setting.preset]
    torch.manual_seed(1)
    frames = setting.tensor(setting.batch, FRAMES, sizes.embed_dim).requires_grad_()
    classes = setting.tensor(CLASSES, sizes.embed_dim)
    labels = torch.randint(CLASSES, (setting.batch,), device=setting.device)
    generator = torch.Generator().manual_seed(2)
    draws = itertools.cycle([TrainingMethod().draw(sizes.layers, setting.experts, generator) for _ in range(64)])

    def run() -> Tensor:
        optimizer.zero_grad()
        frames.grad = None
        loss = loss_of(head, frames, classes, labels, LOGIT_SCALE, next(draws))
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run


WORKLOADS: dict[str, Callable[[Setting], Arms]] = {"merge": merge, "experts": experts, "step": step}
