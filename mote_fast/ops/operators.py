"""The ``torch.library`` registrations of the experts and their optimiser, and the functions that call them.

Shapes: E experts, d embedding width, P values in one expert (layout: ``kernels/reference.py``).
``implementations`` chooses the code behind them by device and dtype. Gradients are hand-written, by backward and once.
Autocast casts the activations but not the experts: the kernels read master weights. Arguments may have any strides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef
from torch.nn import Parameter

from mote_fast.errors import DoubleBackwardError, ShapeError
from mote_fast.kernels.reference import EXPANSION
from mote_fast.ops import arguments
from mote_fast.ops.implementations import kept_by, launchers_for

DEVICES = ("cpu", "cuda")

# Not those without memory, or of other libraries, whose operators are looked for.
_PLAIN = (Tensor, Parameter)


def merge_experts(experts: Tensor, weights: Tensor) -> Tensor:
    """Merge stacked experts into one: ``sum_i weights[i] * experts[i]``.

    Args:
        experts: [E, P], floating point.
        weights: [E], floating point.

    Returns:
        [P] in the dtype of ``experts``, or of autocast if it is on.

    Raises:
        ShapeError: shapes, dtypes or devices do not fit together.
        DerivativeError: torch.func or forward mode differentiates them.

    Source: eq. (9); eq. (13) at inference.
    """
    arguments.check_weights(experts, weights)
    arguments.check_derivatives(experts, weights)
    return _merge(experts.contiguous(), weights, None)


def expert_pair_ffn(
    x_routed: Tensor,
    x_merged: Tensor,
    experts: Tensor,
    weights: Tensor,
    index: Tensor,
    probe: Tensor | None = None,
    *,
    check_index: bool = False,
) -> tuple[Tensor, Tensor]:
    """Both training streams of one layer: expert ``index`` on one input, the merged expert on the other.

    Args:
        x_routed: [..., d], input of the expert stream.
        x_merged: same shape and, outside autocast, same dtype, input of the merged stream.
        experts: [E, P].
        weights: [E], merge weights of this step.
        index: int64 scalar in [0, E), read on the device.
        probe: [2, P], a leaf that receives the gradients of the routed and of the merged row; ``experts`` then gets no
            gradient: the factored form of ``mote_fast.training.optim``. Its values are never read.
        check_index: whether a wrong ``index`` fails on the device (a failed assertion ends a CUDA process) instead of
            reading other memory; the host does not wait for it.

    Returns:
        The two outputs, each with the shape and dtype of its input (eq. (8) and eq. (9)).

    Raises:
        ShapeError: shapes, dtypes or devices do not fit together.
        DerivativeError: torch.func or forward mode differentiates them.
    """
    arguments.check_experts(x_routed, experts)
    arguments.check_weights(experts, weights)
    arguments.check_index(experts, index, check_index)
    if x_merged.shape != x_routed.shape:
        raise ShapeError(f"x_merged must be shaped like x_routed {list(x_routed.shape)}, got {list(x_merged.shape)}")
    arguments.check_device("x_merged", x_merged, experts)
    # Autocast converts both to its dtype.
    if x_merged.dtype != x_routed.dtype and not torch.is_autocast_enabled(experts.device.type):
        raise ShapeError(f"x_merged must be {x_routed.dtype} like x_routed, got {x_merged.dtype}: convert one of them")
    if index.ndim:
        raise ShapeError(f"index must be a scalar, got {list(index.shape)}")
    if probe is not None and probe.shape != (2, experts.shape[1]):
        raise ShapeError(f"probe must be [2, {experts.shape[1]}], got {list(probe.shape)}")
    if probe is not None:
        arguments.check_dtype("probe", probe)
        arguments.check_device("probe", probe, experts)
        experts = experts.detach()
    arguments.check_derivatives(x_routed, x_merged, experts, weights, *([] if probe is None else [probe]))
    return _run_pair(x_routed, x_merged, experts.contiguous(), weights, index, probe)


def routed_ffn(x: Tensor, experts: Tensor, index: Tensor, *, check_index: bool = False) -> Tensor:
    """Run each sample through its own expert.

    Args:
        x: [B, ..., d].
        experts: [E, P].
        index: int64 [B], values in [0, E), read on the device.
        check_index: whether a wrong ``index`` fails on the device, as in ``expert_pair_ffn``; otherwise its sample's
            output is undefined.

    Returns:
        Shaped and typed like ``x``.

    Raises:
        ShapeError: shapes, dtypes or devices do not fit together.
        DerivativeError: torch.func or forward mode differentiates them.
    """
    arguments.check_experts(x, experts)
    arguments.check_index(experts, index, check_index)
    if x.ndim < 2 or index.shape != x.shape[:1]:
        raise ShapeError(f"index must be [B] for x [B, ..., d], got {list(index.shape)} for {list(x.shape)}")
    arguments.check_derivatives(x, experts)
    frames = x.shape[1:-1].numel()
    y, *_ = _routed(x.reshape(x.shape[0], frames, x.shape[-1]), experts.contiguous(), index)
    return y.view(x.shape)


def _custom_op(name: str) -> Callable[[Callable[..., Any]], CustomOpDef]:
    return torch.library.custom_op(f"mote_fast::{name}", mutates_args=(), device_types=DEVICES)


@_custom_op("merge_experts")
def _merge(experts: Tensor, weights: Tensor, out_dtype: torch.dtype | None) -> Tensor:
    return launchers_for("merge", experts).merge_experts_forward(experts, weights, out_dtype)


@_merge.register_fake
def _(experts: Tensor, weights: Tensor, out_dtype: torch.dtype | None) -> Tensor:
    return experts.new_empty(experts.shape[1], dtype=out_dtype)


@_custom_op("merge_experts_backward")
def _merge_backward(grad: Tensor, experts: Tensor, weights: Tensor, of_weights: bool) -> tuple[Tensor, Tensor]:
    launch = launchers_for("merge", experts).merge_experts_backward
    if of_weights:
        return launch(grad.contiguous(), weights, experts)
    return launch(grad.contiguous(), weights, out_dtype=experts.dtype)[0], weights.new_empty(0)


@_merge_backward.register_fake
def _(grad: Tensor, experts: Tensor, weights: Tensor, of_weights: bool) -> tuple[Tensor, Tensor]:
    return experts.new_empty(experts.shape), weights.new_empty(weights.shape[0] if of_weights else 0)


def _merge_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    experts, weights, _ = inputs
    ctx.save_for_backward(experts, weights)


def _merge_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    experts, weights = ctx.saved_tensors
    of_experts, of_weights = _merge_backward(grad, experts, weights, ctx.needs_input_grad[1])
    return of_experts, of_weights if ctx.needs_input_grad[1] else None, None


def pair_forward(
    x_routed: Tensor, x_merged: Tensor, experts: Tensor, weights: Tensor, index: Tensor, probe: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The outputs, and for backward activations [2 A, N, 4d] and experts [R, P]: ``kept_by`` gives A and R."""
    launch = launchers_for("expert_ffn", x_routed, experts).expert_pair_forward
    return launch(x_routed, x_merged, experts, weights, index)


_pair = _custom_op("expert_pair_ffn")(pair_forward)


@_pair.register_fake
def _(
    x_routed: Tensor, x_merged: Tensor, experts: Tensor, weights: Tensor, index: Tensor, probe: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tokens, width = x_routed.shape
    kept = kept_by(experts.device)
    return (
        x_routed.new_empty(x_routed.shape),
        x_merged.new_empty(x_merged.shape),
        x_routed.new_empty(2 * kept.activations, tokens, EXPANSION * width),
        x_routed.new_empty(kept.rows, experts.shape[1]),
    )


def pair_backward(
    dy_routed: Tensor,
    dy_merged: Tensor,
    x_routed: Tensor,
    x_merged: Tensor,
    experts: Tensor,
    weights: Tensor,
    index: Tensor,
    saved: Tensor,
    rows: Tensor,
    dense: bool,
    of_weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of both inputs, of the experts ([E, P] if dense, else both rows [2, P]) and of the weights."""
    module = launchers_for("expert_ffn", x_routed, experts)
    dx_routed, dx_merged, grads = module.expert_pair_backward(
        dy_routed, dy_merged, x_routed, x_merged, experts, rows, index, saved, dense
    )
    of_experts = module.expand_expert_gradient(grads[1], grads[0], weights, index) if dense else grads
    # The merge is linear, so a weight's gradient is its expert's dot product with the merged row's gradient.
    grad_weights = torch.mv(experts.to(weights.dtype), grads[1].to(weights.dtype)) if of_weights else None
    return dx_routed, dx_merged, of_experts, weights.new_empty(0) if grad_weights is None else grad_weights


_pair_backward = _custom_op("expert_pair_ffn_backward")(pair_backward)


@_pair_backward.register_fake
def _(
    dy_routed: Tensor,
    dy_merged: Tensor,
    x_routed: Tensor,
    x_merged: Tensor,
    experts: Tensor,
    weights: Tensor,
    index: Tensor,
    saved: Tensor,
    rows: Tensor,
    dense: bool,
    of_weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x_routed.new_empty(x_routed.shape),
        x_merged.new_empty(x_merged.shape),
        experts.new_empty(experts.shape[0] if dense else 2, experts.shape[1]),
        weights.new_empty(weights.shape[0] if of_weights else 0),
    )


def _pair_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, probe = inputs
    ctx.factored = probe is not None
    # The saved activations and rows are outputs for backward only; zero gradients for them would cost a pass.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[2], output[3])


def _pair_gradient(
    ctx: Any, dy_routed: Tensor | None, dy_merged: Tensor | None, *_: Tensor | None, direct: bool = False
) -> tuple[Tensor | None, ...]:
    x_routed, x_merged, experts, weights, index, saved, rows = ctx.saved_tensors
    dx_routed, dx_merged, of_experts, of_weights = (pair_backward if direct else _pair_backward)(
        torch.zeros_like(x_routed) if dy_routed is None else dy_routed,
        torch.zeros_like(x_merged) if dy_merged is None else dy_merged,
        x_routed,
        x_merged,
        experts,
        weights,
        index,
        saved,
        rows,
        not ctx.factored,
        ctx.needs_input_grad[3],
    )
    return (
        dx_routed,
        dx_merged,
        None if ctx.factored else of_experts,
        of_weights if ctx.needs_input_grad[3] else None,
        None,
        of_experts if ctx.factored else None,
    )


class _EagerPair(torch.autograd.Function):
    """The registered operator without its ways through the dispatcher: they take longer than the launches behind it.

    It takes and returns tensors [..., d]: each change of shape outside would be a call forward and a node backward.
    """

    @staticmethod
    def forward(ctx: Any, x_routed: Tensor, x_merged: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        flat = _flat(x_routed, x_merged)
        y_routed, y_merged, *kept = pair_forward(*flat, *rest)
        _pair_context(ctx, (*flat, *rest), (y_routed, y_merged, *kept))
        ctx.shape = x_routed.shape
        # Views that are outputs of one node may not be changed in place; these are not marked as views.
        reshape = torch.ops.aten._unsafe_view.default
        return reshape(y_routed, ctx.shape), reshape(y_merged, ctx.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        # A pass that is itself to be differentiated goes through the operator, which says that it cannot be; one under
        # autocast, because the operator runs without.
        registered = torch.is_grad_enabled() or torch.is_autocast_enabled(ctx.saved_tensors[0].device.type)
        flat = (None if grad is None else grad.reshape(-1, grad.shape[-1]) for grad in grads)
        dx_routed, dx_merged, *others = _pair_gradient(ctx, *flat, direct=not registered)
        assert dx_routed is not None
        assert dx_merged is not None
        return dx_routed.view(ctx.shape), dx_merged.view(ctx.shape), *others


def _flat(x_routed: Tensor, x_merged: Tensor) -> tuple[Tensor, Tensor]:
    """Both streams as [N, d]. Those of the first layer share one tensor; flattening it once keeps it shared."""
    routed = x_routed.reshape(-1, x_routed.shape[-1])
    return routed, routed if x_merged is x_routed else x_merged.reshape(-1, x_merged.shape[-1])


def _run_pair(x_routed: Tensor, x_merged: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """The pair as a registered operator, or directly where nothing looks for operators."""
    tracing = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    watched = tracing or torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active()
    device = x_routed.device.type
    tensors = (x_routed, x_merged, *rest[:-1])
    if watched or device not in DEVICES or any(type(x) not in _PLAIN for x in tensors):
        y_routed, y_merged, *_ = _pair(*_flat(x_routed, x_merged), *rest)
        return y_routed.view(x_routed.shape), y_merged.view(x_merged.shape)
    if not torch.is_autocast_enabled(device):
        return _EagerPair.apply(x_routed, x_merged, *rest)
    dtype = torch.get_autocast_dtype(device)
    routed = x_routed.to(dtype)
    with torch.autocast(device, enabled=False):
        return _EagerPair.apply(routed, routed if x_merged is x_routed else x_merged.to(dtype), *rest)


@_custom_op("routed_ffn")
def _routed(x: Tensor, experts: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The output, and for backward activations [A, B * T, 4d], order of the samples [B], starts [E + 1]."""
    y, (activations, (order, starts)) = launchers_for("routed_ffn", x, experts).routed_forward(x, experts, index)
    return y, activations, order, starts


@_routed.register_fake
def _(x: Tensor, experts: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    samples, frames, width = x.shape
    return (
        x.new_empty(x.shape),
        x.new_empty(kept_by(experts.device).activations, samples * frames, EXPANSION * width),
        index.new_empty(samples, dtype=torch.int32),
        index.new_empty(experts.shape[0] + 1, dtype=torch.int32),
    )


@_custom_op("routed_ffn_backward")
def _routed_backward(
    dy: Tensor, x: Tensor, experts: Tensor, index: Tensor, activations: Tensor, order: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    module = launchers_for("routed_ffn", x, experts)
    saved = module.Saved(activations, module.Grouping(order, starts))
    return module.routed_backward(dy, x, experts, index, saved)


@_routed_backward.register_fake
def _(
    dy: Tensor, x: Tensor, experts: Tensor, index: Tensor, activations: Tensor, order: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), experts.new_empty(experts.shape)


def _routed_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, *output[1:])


def _routed_gradient(ctx: Any, dy: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    return *_routed_backward(dy, *ctx.saved_tensors), None


def _refuse_double_backward(ctx: Any, *grads: Tensor | None) -> None:
    raise DoubleBackwardError(
        "the expert operators are once differentiable: call backward without create_graph=True, or use "
        "mote_fast.kernels.reference for higher derivatives"
    )


def _cast_under_autocast(definition: CustomOpDef, cast: Callable[..., tuple[Any, ...]]) -> None:
    """Run the operator with autocast off, on arguments converted by ``cast(dtype, *args)``."""
    for device in DEVICES:
        key = getattr(torch._C.DispatchKey, f"Autocast{device.upper()}")

        def kernel(_: Any, *args: Any, device: str = device, key: Any = key) -> Any:
            with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
                return definition._opoverload(*cast(torch.get_autocast_dtype(device), *args))

        definition._lib.impl(definition._name, kernel, f"Autocast{device.upper()}", with_keyset=True)


_merge.register_autograd(_merge_gradient, setup_context=_merge_context)
_pair.register_autograd(_pair_gradient, setup_context=_pair_context)
_routed.register_autograd(_routed_gradient, setup_context=_routed_context)
for _backward in (_merge_backward, _pair_backward, _routed_backward):
    _backward.register_autograd(_refuse_double_backward)
    _cast_under_autocast(_backward, lambda dtype, *args: args)

_cast_under_autocast(_merge, lambda dtype, experts, weights, out_dtype: (experts, weights, out_dtype or dtype))
_cast_under_autocast(_pair, lambda dtype, routed, merged, *rest: (routed.to(dtype), merged.to(dtype), *rest))
_cast_under_autocast(_routed, lambda dtype, x, *rest: (x.to(dtype), *rest))
