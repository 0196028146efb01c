"""The official implementation's numbers through the registered operators with the Triton kernels behind them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from mote_fast import head_optimizer, training_loss
from mote_fast.model.released import head_from_released, head_to_released
from mote_fast.ops import operators
from mote_fast.ops.implementations import implemented_by
from tests.streams import stream_logits
from tests.test_golden import HEADS, LOGIT_SCALE, draws
from tests.tolerances import assert_close


def test_training_step_through_the_kernels(
    golden: dict[str, Any], golden_head: dict[str, Tensor], released_head: dict[str, Tensor]
) -> None:
    """Logits of both streams, the loss and every gradient of one official step."""
    head = head_from_released(released_head, HEADS)
    frames = golden_head["input.video"].clone().requires_grad_()
    with implemented_by("triton"):
        text, labels = golden_head["input.text"], golden_head["input.labels"]
        logits, _ = stream_logits(head, frames, text, draws(golden, 0))
        loss = training_loss(head, frames, text, labels, LOGIT_SCALE, draws=draws(golden, 0))
        loss.total.backward()
    assert_close(logits, golden_head["train.logits_expert"])
    assert_close(loss.total, golden_head["train.loss"])
    assert frames.grad is not None
    assert_close(frames.grad, golden_head["train.grad.input"])
    gradients = copy.deepcopy(head)
    for parameter, source in zip(gradients.parameters(), head.parameters(), strict=True):
        assert source.grad is not None
        parameter.data = source.grad
    for name, gradient in head_to_released(gradients).items():
        if (expected := golden_head.get(f"train.grad.{name}")) is not None:
            assert_close(gradient, expected)


def test_trajectory_through_the_kernels(
    golden: dict[str, Any], golden_head: dict[str, Tensor], released_head: dict[str, Tensor]
) -> None:
    """Ten steps of head_optimizer, the factored update being a kernel too."""
    head = head_from_released(released_head, HEADS)
    optimizer = head_optimizer(head, lr=1e-3)
    losses = []
    with implemented_by("triton"):
        for step in range(len(golden["trajectory"]["losses"])):
            inputs = (golden_head[f"input.{name}"] for name in ("video", "text", "labels"))
            loss = training_loss(head, *inputs, LOGIT_SCALE, draws=draws(golden, step)).total
            losses.append(loss.detach())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert_close(torch.stack(losses), torch.tensor(golden["trajectory"]["losses"]), "trajectory")


def test_one_expert_per_sample_and_merging_through_the_kernels() -> None:
    """The other two operators agree with their CPU implementation, gradients included."""
    torch.manual_seed(0)
    width, experts = 16, 3
    stack = 0.2 * torch.randn(experts, 8 * width * width + 5 * width)
    x, index, weights = torch.randn(4, 2, width), torch.tensor([2, 0, 2, 2]), torch.tensor([0.2, 0.3, 0.5])

    def run() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (x, stack, weights)]
        y, merged = operators.routed_ffn(leaves[0], leaves[1], index), operators.merge_experts(leaves[1], leaves[2])
        return [y, merged, *torch.autograd.grad(y.square().sum() + merged.square().sum(), leaves)]

    expected = run()
    with implemented_by("triton"):
        found = run()
    for mine, truth in zip(found, expected, strict=True):
        assert_close(mine, truth)
