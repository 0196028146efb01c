"""Compares a model with the shapes of a file's tensors before the model takes memory.

A configuration of a few bytes can describe a model of any size, and so can one tensor whose length other tensors follow
from. The model is first built on PyTorch's meta device, where tensors have shapes and no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from mote_fast.errors import CheckpointError, quoted
from mote_fast.runtime.skip_init import skip_init

Model = TypeVar("Model", bound=nn.Module)

# Layers of a tower or a head; each takes a millisecond to build, even without memory.
MAX_LAYERS = 1024
# Elements of what a model computes for itself and no file holds, such as causal masks; CLIP's has 77 x 77.
MAX_COMPUTED = 2**26


def plan_of(build: Callable[[], Model]) -> Model:
    """Return what ``build`` builds, on the meta device."""
    # Draws on the meta device run in Python.
    with torch.device("meta"), skip_init():
        return build()


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_shapes(plan: nn.Module, found: Mapping[str, Sequence[int]], source: object) -> None:
    """Check that a file has every tensor of a model, in its shape, and no other.

    Args:
        plan: the model, on any device.
        found: the shapes of the file's tensors by name.
        source: the file, for the message.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape, or the model computes huge ones for itself.
    """
    expected = shapes_of(plan.state_dict())
    what = [f"{quoted(name)} is missing" for name in expected.keys() - found.keys()]
    what += [f"{quoted(name)} is unknown" for name in found.keys() - expected.keys()]
    what += [
        f"{quoted(name)} is {quoted(list(found[name]))}, the model has {quoted(list(shape))}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != shape
    ]
    if what:
        more = f", and {len(what) - 3} more" if len(what) > 3 else ""
        raise CheckpointError(f"{source}: does not fit the model: {', '.join(sorted(what)[:3])}{more}")
    computed = sum(value.numel() for name, value in plan.named_buffers() if name not in expected)
    if computed > MAX_COMPUTED:
        raise CheckpointError(f"{source}: describes a model with masks of {computed} elements, over {MAX_COMPUTED}")
