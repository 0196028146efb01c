"""Inputs of the expert operators, what the operators make of them, and the float64 truth on the same device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from mote_fast.head.experts import merge_weights
from mote_fast.kernels import reference
from mote_fast.kernels.reference import EXPANSION, expert_size
from mote_fast.ops import activation, operators

# Tokens that the float64 truth deals with at once: bounds its memory.
CHUNK = 8192
TEMPERATURE = 2.4


@dataclass(frozen=True)
class Shape:
    """Sizes of one layer's experts: d, clips, frames and E."""

    name: str
    width: int
    clips: int
    frames: int
    experts: int

    @property
    def tokens(self) -> int:
        """N, tokens of one stream."""
        return self.clips * self.frames


# Training shapes of the method: batch 64 and 48 per GPU, 8 frames, 4 experts.
VIT_B_16 = Shape("B/16", 512, 64, 8, 4)
VIT_L_14 = Shape("L/14", 768, 48, 8, 4)


@dataclass(frozen=True)
class Precision:
    """The dtypes of activations and of master weights, and the largest error that passes."""

    name: str
    activation: torch.dtype
    master: torch.dtype
    bound: float


PRECISIONS = (
    Precision("float32", torch.float32, torch.float32, 1e-5),
    Precision("mixed bf16", torch.bfloat16, torch.float32, 2e-2),
    Precision("mixed fp16", torch.float16, torch.float32, 2e-3),
    Precision("bf16", torch.bfloat16, torch.bfloat16, 2e-2),
    Precision("fp16", torch.float16, torch.float16, 2e-3),
)
ADAMW_BOUND = 1e-6
# The gradient of a merge weight is one dot product over all of an expert, whose terms cancel.
DOT_PRODUCT = 10.0


@dataclass(frozen=True)
class PairInputs:
    """Arguments of expert_pair_ffn and the gradients of its outputs."""

    x_routed: Tensor
    x_merged: Tensor
    experts: Tensor
    weights: Tensor
    index: Tensor
    dy_routed: Tensor
    dy_merged: Tensor


@dataclass(frozen=True)
class RoutedInputs:
    """Arguments of routed_ffn and the gradient of its output."""

    x: Tensor
    experts: Tensor
    index: Tensor
    dy: Tensor


@dataclass(frozen=True)
class MergeInputs:
    """Arguments of merge_experts and the gradient of its output."""

    experts: Tensor
    weights: Tensor
    grad: Tensor


@dataclass(frozen=True)
class ActivationInputs:
    """The argument of quick_gelu, a hidden layer [N, 4d], and the gradient of its output."""

    x: Tensor
    dy: Tensor


def _normal(shape: Sequence[int], device: torch.device, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    # In place: the largest of these take a tenth of a card.
    return torch.randn(*shape, device=device, dtype=torch.float32).mul_(scale).to(dtype)


def _experts(shape: Shape, precision: Precision, device: torch.device) -> Tensor:
    return _normal((shape.experts, expert_size(shape.width)), device, precision.master, shape.width**-0.5)


def pair_inputs(shape: Shape, precision: Precision, device: torch.device) -> PairInputs:
    """Draw the inputs of a training step's layer."""
    x_routed, x_merged, dy_routed, dy_merged = (
        _normal((shape.tokens, shape.width), device, precision.activation) for _ in range(4)
    )
    weights = merge_weights(shape.experts, TEMPERATURE).to(device)
    index = torch.tensor(shape.experts - 1, device=device)
    return PairInputs(x_routed, x_merged, _experts(shape, precision, device), weights, index, dy_routed, dy_merged)


def routed_inputs(shape: Shape, precision: Precision, device: torch.device) -> RoutedInputs:
    """Draw the inputs of one expert per sample."""
    x, dy = (_normal((shape.clips, shape.frames, shape.width), device, precision.activation) for _ in range(2))
    index = torch.randint(shape.experts, (shape.clips,), device=device)
    return RoutedInputs(x, _experts(shape, precision, device), index, dy)


def merge_inputs(shape: Shape, precision: Precision, device: torch.device) -> MergeInputs:
    """Draw the inputs of a merge."""
    weights = merge_weights(shape.experts, TEMPERATURE).to(device)
    grad = _normal((expert_size(shape.width),), device, precision.master)
    return MergeInputs(_experts(shape, precision, device), weights, grad)


def activation_inputs(shape: Shape, precision: Precision, device: torch.device) -> ActivationInputs:
    """Draw a hidden layer."""
    size = (shape.tokens, EXPANSION * shape.width)
    return ActivationInputs(*(_normal(size, device, precision.activation) for _ in range(2)))


def run_pair(given: PairInputs) -> list[Tensor]:
    """Both outputs, then the gradients of both inputs, the experts and the weights."""
    x_routed, x_merged, experts, weights = map(leaf, (given.x_routed, given.x_merged, given.experts, given.weights))
    y = operators.expert_pair_ffn(x_routed, x_merged, experts, weights, given.index)
    grads = torch.autograd.grad(y, (x_routed, x_merged, experts, weights), (given.dy_routed, given.dy_merged))
    return [*y, *grads]


def run_pair_factored(given: PairInputs) -> list[Tensor]:
    """Both outputs, then the gradients of both inputs and the two rows [2, P]."""
    x_routed, x_merged = leaf(given.x_routed), leaf(given.x_merged)
    probe = leaf(given.experts.new_empty(1).expand(2, given.experts.shape[1]))
    y = operators.expert_pair_ffn(x_routed, x_merged, given.experts, given.weights, given.index, probe)
    return [*y, *torch.autograd.grad(y, (x_routed, x_merged, probe), (given.dy_routed, given.dy_merged))]


def run_routed(given: RoutedInputs) -> list[Tensor]:
    """The output, then the gradients of the input and the experts."""
    x, experts = leaf(given.x), leaf(given.experts)
    y = operators.routed_ffn(x, experts, given.index)
    return [y, *torch.autograd.grad(y, (x, experts), given.dy)]


def run_merge(given: MergeInputs) -> list[Tensor]:
    """The merged row, then the gradients of the experts and the weights."""
    experts, weights = leaf(given.experts), leaf(given.weights)
    y = operators.merge_experts(experts, weights)
    return [y, *torch.autograd.grad(y, (experts, weights), given.grad)]


def run_activation(given: ActivationInputs) -> list[Tensor]:
    """The activation, then the gradient of the input."""
    x = leaf(given.x)
    y = activation.quick_gelu(x)
    return [y, *torch.autograd.grad(y, x, given.dy)]


def leaf(tensor: Tensor) -> Tensor:
    """Return a leaf over the same memory, with the same strides."""
    return tensor.detach().requires_grad_()


def _ffn_truth(x: Tensor, dy: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, gradient of ``x [N, d]`` and of ``row [P]``, float64, some tokens at a time."""
    row = row.double()
    outputs, gradients, total = [x.new_empty((0, x.shape[1])).double()], [], torch.zeros_like(row)
    for some, dsome in zip(x.split(CHUNK), dy.split(CHUNK), strict=True):
        outputs.append(reference.expert_ffn(some.double(), row))
        dx, grad = reference.expert_ffn_backward(dsome.double(), some.double(), row)
        gradients.append(dx)
        total += grad
    return torch.cat(outputs), torch.cat([outputs[0], *gradients]), total


def pair_truth(given: PairInputs) -> list[Tensor]:
    """What ``run_pair`` should return, float64."""
    y_routed, y_merged, dx_routed, dx_merged, rows = pair_factored_truth(given)
    weights = given.weights.double()
    grad_experts = reference.expand_expert_gradient(rows[1], rows[0], weights, given.index)
    return [y_routed, y_merged, dx_routed, dx_merged, grad_experts, given.experts.double() @ rows[1]]


def pair_factored_truth(given: PairInputs) -> list[Tensor]:
    """What ``run_pair_factored`` should return, float64."""
    merged = given.weights.double() @ given.experts.double()
    y_merged, dx_merged, grad_merged = _ffn_truth(given.x_merged, given.dy_merged, merged)
    y_routed, dx_routed, g = _ffn_truth(given.x_routed, given.dy_routed, given.experts[given.index])
    return [y_routed, y_merged, dx_routed, dx_merged, torch.stack((g, grad_merged))]


def routed_truth(given: RoutedInputs) -> list[Tensor]:
    """What ``run_routed`` should return, float64."""
    width = given.x.shape[-1]
    y, dx = torch.zeros_like(given.x, dtype=torch.float64), torch.zeros_like(given.x, dtype=torch.float64)
    grad = torch.zeros_like(given.experts, dtype=torch.float64)
    for expert in range(given.experts.shape[0]):
        chosen = given.index == expert
        x, dy = given.x[chosen], given.dy[chosen]
        some, dsome, grad[expert] = _ffn_truth(x.reshape(-1, width), dy.reshape(-1, width), given.experts[expert])
        y[chosen], dx[chosen] = some.view(x.shape), dsome.view(x.shape)
    return [y, dx, grad]


def merge_truth(given: MergeInputs) -> list[Tensor]:
    """What ``run_merge`` should return, float64."""
    experts, weights, grad = given.experts.double(), given.weights.double(), given.grad.double()
    return [weights @ experts, torch.outer(weights, grad), experts @ grad]


def activation_truth(given: ActivationInputs) -> list[Tensor]:
    """What ``run_activation`` should return, float64."""
    x = given.x.double()
    return [reference.quick_gelu(x), given.dy.double() * reference.quick_gelu_gradient(x)]


Layout = Callable[[Tensor], Tensor]


def _offset(x: Tensor) -> Tensor:
    """The same values one element into their memory: not 16-byte aligned."""
    padded = torch.cat((x.new_zeros(1), x.reshape(-1)))
    return padded[1:].view(x.shape)


def _strided(x: Tensor) -> Tensor:
    """The same values, every other element of their memory, what is between them large."""
    if not x.ndim:
        return _offset(x)
    other = torch.full_like(x, 1e4) if x.is_floating_point() else torch.zeros_like(x)
    return torch.stack((x, other), -1).flatten(-2)[..., ::2]


def _expanded(x: Tensor) -> Tensor:
    """The first entry along the first dimension, repeated without a copy."""
    return x[:1].expand_as(x) if x.ndim else x.reshape(1).expand(2)[1]


Inputs = TypeVar("Inputs", PairInputs, RoutedInputs, MergeInputs, ActivationInputs)

LAYOUTS: dict[str, Layout] = {"offset": _offset, "strided": _strided, "expanded": _expanded}


def laid_out(given: Inputs, argument: str, layout: str) -> Inputs:
    """Return the inputs with one argument in another layout."""
    return replace(given, **{argument: LAYOUTS[layout](getattr(given, argument))})
