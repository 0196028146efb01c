"""An optimiser whose step a CUDA graph can hold: numbers as tensors, and the state of any other AdamW."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from mote_fast import head_optimizer
from tests.training.optim.test_adamw import OPTIONS, assert_same_parameters, backward, make_heads


@pytest.mark.parametrize("first", [False, True])
def test_the_state_passes_between_capturable_and_other_optimizers(first: bool) -> None:
    """A checkpoint of either is read by the other, which goes on with its own kind of numbers."""
    mine, other = make_heads()
    before, straight = head_optimizer(mine, **OPTIONS, capturable=first), head_optimizer(other, **OPTIONS)
    for head, optimizer in ((mine, before), (other, straight)):
        backward(head, 0)
        optimizer.step()
        optimizer.zero_grad()
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    after = head_optimizer(mine, 1.0, capturable=not first)
    after.load_state_dict(torch.load(file))
    assert isinstance(after.param_groups[0]["lr"], torch.Tensor) is not first
    for head, optimizer in ((mine, after), (other, straight)):
        backward(head, 1)
        optimizer.step()
    assert_same_parameters(mine, other)


def test_a_rate_on_the_device_keeps_its_place() -> None:
    """A captured step reads the address: schedulers and loading write the rate where it is."""
    head, _ = make_heads()
    scale = torch.nn.Parameter(torch.ones(()))
    optimizer = head_optimizer(head, 1e-2, extra_groups=[{"params": [scale], "lr": 1e-3}], capturable=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    saved = copy.deepcopy(optimizer.state_dict())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: 0.5, lambda step: 0.25])
    assert [float(rate) for rate in rates] == pytest.approx([5e-3, 2.5e-4])
    optimizer.step()
    scheduler.step()
    optimizer.load_state_dict(saved)
    assert [float(rate) for rate in rates] == pytest.approx([1e-2, 1e-3])
    assert all(group["lr"] is rate for group, rate in zip(optimizer.param_groups, rates, strict=True))
