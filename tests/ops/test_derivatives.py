"""The operators where autograd is off, forward, transformed or without memory: right, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from mote_fast.errors import DerivativeError, ShapeError
from mote_fast.kernels import reference
from mote_fast.ops import operators
from mote_fast.ops.activation import quick_gelu
from mote_fast.ops.implementations import Implementation, implemented_by
from tests.ops.layout_cases import ARGUMENTS, operator, truth
from tests.tolerances import assert_close

NAMES = ["merge_experts", "expert_pair_ffn", "routed_ffn"]


def of_first(name: str, run: Callable[..., Any]) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """One operator as a function of its first floating argument, and that; the last output alone."""
    arguments, _ = ARGUMENTS[name]
    place, value = next(iter(arguments.items()))

    def function(x: Tensor) -> Tensor:
        out = run(**{**arguments, place: x})
        return out if isinstance(out, Tensor) else out[0]

    return function, value


def dual(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor | None:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Any]] = {
    "grad": lambda f, x: torch.func.grad(lambda y: f(y).sum())(x),
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (torch.ones_like(x),)),
    "jacrev": lambda f, x: torch.func.jacrev(f)(x),
    "gradients of samples": lambda f, x: torch.func.vmap(torch.func.grad(lambda y: f(y).sum()))(x.expand(2, *x.shape)),
    "gradient of all": lambda f, x: torch.func.grad(lambda y: torch.func.vmap(f)(y.expand(2, *y.shape)).sum())(x),
    "forward mode": dual,
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_that_the_operators_lack_are_refused(name: str, transform: str) -> None:
    """Forward mode gave zeros without a word, and torch.func an error of PyTorch's inside."""
    with pytest.raises(DerivativeError, match=r"mote_fast\.kernels\.reference"):
        TRANSFORMS[transform](*of_first(name, operator(name)))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_quick_gelu_has_every_derivative(transform: str) -> None:
    """By its formula, as in plain PyTorch."""
    x = ARGUMENTS["quick_gelu"][0]["x"]
    found, expected = (TRANSFORMS[transform](f, x) for f in (quick_gelu, reference.quick_gelu))
    for mine, wanted in zip(found, expected, strict=True):
        assert_close(mine, wanted, "exact")


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", NAMES)
def test_vmap_and_derivatives_of_others_run(name: str) -> None:
    """vmap calls the operator for each sample; a derivative with respect to what the operator does not see is right."""
    function, x = of_first(name, operator(name))
    several = torch.stack((x, 2 * x))
    assert_close(torch.func.vmap(function)(several), torch.stack([function(each) for each in several]), "exact")
    slope = torch.func.grad(lambda scale: (scale * function(x)).sum())(torch.tensor(2.0))
    assert_close(slope, function(x).sum(), "equivalent")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("implementation", ["cpu", "torch"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_values_without_autograd(name: str, implementation: Implementation, mode: Callable[[], Any]) -> None:
    """The same values, which need no gradient."""
    arguments = {key: x.clone().requires_grad_(x.is_floating_point()) for key, x in ARGUMENTS[name][0].items()}
    with mode(), implemented_by(implementation):
        found = operator(name)(**arguments)
    expected = truth(name)(**ARGUMENTS[name][0])
    for mine, wanted in zip(*((y,) if isinstance(y, Tensor) else y for y in (found, expected)), strict=True):
        assert not mine.requires_grad
        assert_close(mine, wanted)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_tensors_without_memory_have_their_shapes(name: str) -> None:
    """On the meta device: the registered operators have fake kernels, and nothing else runs there."""
    found = operator(name)(**{key: x.to("meta") for key, x in ARGUMENTS[name][0].items()})
    expected = truth(name)(**ARGUMENTS[name][0])
    for mine, wanted in zip(*((y,) if isinstance(y, Tensor) else y for y in (found, expected)), strict=True):
        assert (mine.device.type, mine.shape, mine.dtype) == ("meta", wanted.shape, wanted.dtype)


def test_arguments_that_no_kernel_takes_are_named() -> None:
    """No experts, probes of other devices and dtypes, and activations that are no floating numbers."""
    pair = ARGUMENTS["factored"][0]
    with pytest.raises(ShapeError, match="at least one expert"):
        operators.merge_experts(pair["experts"][:0], pair["weights"][:0])
    with pytest.raises(ShapeError, match="at least one expert"):
        operators.routed_ffn(pair["x_routed"], pair["experts"][:0], torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ShapeError, match="probe must be on the device"):
        operators.expert_pair_ffn(**{**pair, "probe": pair["probe"].to("meta")})
    with pytest.raises(ShapeError, match="probe must be floating point"):
        operators.expert_pair_ffn(**{**pair, "probe": pair["probe"].long()})
    for wrong in (torch.int64, torch.complex64, torch.float8_e5m2):
        with pytest.raises(ShapeError, match=f"x must be floating point, of 16, 32 or 64 bits, got {wrong}"):
            quick_gelu(pair["x_routed"].to(wrong))
