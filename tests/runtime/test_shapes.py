"""A model and a file's tensors are compared before the model takes memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mote_fast.errors import CheckpointError
from mote_fast.runtime.shapes import MAX_COMPUTED, check_shapes, plan_of, shapes_of


def test_a_plan_takes_no_memory() -> None:
    """A layer of four terabytes has a shape."""
    plan = plan_of(lambda: nn.Linear(2**20, 2**20))
    assert plan.weight.is_meta
    check_shapes(plan, {"weight": (2**20, 2**20), "bias": (2**20,)}, "file")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"weight": (2, 3)}, "'bias' is missing"),
        ({"weight": (2, 3), "bias": (2,), "more": ()}, "'more' is unknown"),
        ({"weight": (3, 2), "bias": (2,)}, r"'weight' is \[3, 2\], the model has \[2, 3\]"),
        ({str(number): () for number in range(9)}, "and 8 more"),
    ],
)
def test_differences_are_named(found: dict[str, tuple[int, ...]], message: str) -> None:
    """A few of them, with the file."""
    with pytest.raises(CheckpointError, match=f"file: does not fit the model: .*{message}"):
        check_shapes(nn.Linear(3, 2), found, "file")


def test_what_no_file_holds_is_bounded() -> None:
    """A mask that the model computes grows with the square of a length."""
    model = nn.Linear(3, 2)
    found = shapes_of(model.state_dict())
    model.register_buffer("mask", torch.empty(MAX_COMPUTED + 1, device="meta"), persistent=False)
    with pytest.raises(CheckpointError, match="masks of"):
        check_shapes(model, found, "file")
