"""Every tensor argument of every operator in every layout, through the registered operators: none is read by the wrong
stride, whoever made it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mote_fast.errors import ShapeError
from mote_fast.kernels import reference
from mote_fast.kernels.factored_adamw import adamw_factored
from mote_fast.kernels.merge import expand_expert_gradient
from mote_fast.ops import operators
from mote_fast.ops.implementations import implemented_by
from tests.tolerances import assert_close

WIDTH, EXPERTS, TOKENS, CLIPS = 16, 3, 5, 4
SIZE = reference.expert_size(WIDTH)


def every_other(x: Tensor) -> Tensor:
    """Lay ``x`` out with a gap after each element of its last dimension; a scalar lies in the middle of a vector."""
    return torch.stack((x, torch.full_like(x, 77)), -1)[..., 0]


def transposed(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT if x.ndim > 1 else every_other(x)


def expanded(x: Tensor) -> Tensor:
    """The first row (of a vector, the first value) for all."""
    return x[:1].expand(x.shape) if x.ndim else x


def offset(x: Tensor) -> Tensor:
    """One element behind the start of the storage, where no 128-bit access is aligned."""
    return torch.cat((torch.full((1,), 77).to(x.dtype), x.flatten()))[1:].view(x.shape)


LAYOUTS = {"strided": every_other, "transposed": transposed, "expanded": expanded, "offset": offset}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


STACK, WEIGHTS = 0.2 * normal(EXPERTS, SIZE, seed=0), normal(EXPERTS, seed=1).softmax(0)
CHOSEN, INDEX = torch.tensor(1), torch.tensor([2, 0, 2, 1])

# Arguments, then the gradient of each output.
ARGUMENTS: dict[str, tuple[dict[str, Tensor], tuple[Tensor, ...]]] = {
    "merge_experts": ({"experts": STACK, "weights": WEIGHTS}, (normal(SIZE, seed=2),)),
    "expert_pair_ffn": (
        {
            "x_routed": normal(TOKENS, WIDTH, seed=3),
            "x_merged": normal(TOKENS, WIDTH, seed=4),
            "experts": STACK,
            "weights": WEIGHTS,
            "index": CHOSEN,
        },
        (normal(TOKENS, WIDTH, seed=5), normal(TOKENS, WIDTH, seed=6)),
    ),
    "routed_ffn": (
        {"x": normal(CLIPS, 2, WIDTH, seed=7), "experts": STACK, "index": INDEX},
        (normal(CLIPS, 2, WIDTH, seed=8),),
    ),
}


def values_and_gradients(
    run: Callable[..., Tensor | tuple[Tensor, ...]], arguments: dict[str, Tensor], dy: tuple[Tensor, ...]
) -> list[Tensor]:
    """Return the outputs, then the gradients of the floating arguments."""
    leaves = {name: x.detach().requires_grad_(x.is_floating_point()) for name, x in arguments.items()}
    out = run(**leaves)
    outs = (out,) if isinstance(out, Tensor) else out
    return [*outs, *torch.autograd.grad(outs, [x for x in leaves.values() if x.is_floating_point()], dy)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_argument_of_every_operator(name: str, layout: str) -> None:
    """Values and gradients are those of the float64 reference, whichever argument or output gradient has the layout."""
    arguments, dy = ARGUMENTS[name]
    for changed in (*arguments, *range(len(dy))):
        laid = {key: LAYOUTS[layout](x) if key == changed else x for key, x in arguments.items()}
        given = tuple(LAYOUTS[layout](x) if i == changed else x for i, x in enumerate(dy))
        exact = {key: x.double() if x.is_floating_point() else x for key, x in laid.items()}
        expected = values_and_gradients(getattr(reference, name), exact, tuple(x.double() for x in given))
        with implemented_by("triton"):
            found = values_and_gradients(getattr(operators, name), laid, given)
        for mine, truth in zip(found, expected, strict=True):
            assert_close(mine, truth, "dot product")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_factor_of_the_optimiser(layout: str) -> None:
    """The factored update and the expansion read every factor by its strides."""
    factor = normal(SIZE, seed=9), normal(SIZE, seed=10), WEIGHTS, CHOSEN
    for changed in range(len(factor)):
        laid = tuple(LAYOUTS[layout](x) if i == changed else x for i, x in enumerate(factor))
        states = STACK.clone(), torch.zeros_like(STACK), torch.zeros_like(STACK)
        adamw_factored(*states, [laid], step=1, lr=1e-2)
        dense = [tuple(x.contiguous() for x in laid)]
        expected = reference.adamw_factored_step(STACK, *map(torch.zeros_like, states[1:]), dense, 1, 1e-2)
        for mine, truth in zip(states, expected, strict=True):
            assert_close(mine, truth)
        assert_close(expand_expert_gradient(*laid), reference.expand_expert_gradient(*dense[0]))


def test_what_is_written_must_be_contiguous() -> None:
    """A parameter, a moment or a gradient that a copy would replace is refused by name."""
    factor = normal(SIZE, seed=9), normal(SIZE, seed=10), WEIGHTS, CHOSEN
    for place, name in enumerate(("param", "exp_avg", "exp_avg_sq")):
        states = [every_other(STACK) if i == place else STACK.clone() for i in range(3)]
        with pytest.raises(ShapeError, match=f"{name} must be contiguous"):
            adamw_factored(*states, [factor], step=1, lr=1e-2)
    with pytest.raises(ShapeError, match="out must be contiguous"):
        expand_expert_gradient(*factor, out=every_other(STACK))
