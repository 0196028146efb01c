"""What section 8 times: the work of one layer's experts, its compulsory bytes and flops, and ways to do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.device_check import expert_cases as cases
from mote_fast.device_check.expert_cases import Precision, Shape
from mote_fast.kernels.reference import expert_size, quick_gelu, unpack_expert
from mote_fast.ops import activation
from mote_fast.ops.implementations import Implementation, implemented_by, launchers


@dataclass(frozen=True)
class Work:
    """One piece of work: bytes that it must move, flops, and the call under the name of each way."""

    name: str
    nbytes: float
    flops: float
    calls: dict[str, Callable[[], Any]]


def layer_work(
    shape: Shape, precision: Precision, device: torch.device, ways: tuple[Implementation, ...]
) -> list[Work]:
    """The work of a layer; the formulas are those of docs/kernels.md."""
    pair, routed = cases.pair_inputs(shape, precision, device), cases.routed_inputs(shape, precision, device)
    merge, adamw = cases.merge_inputs(shape, precision, device), _Optimizer(pair.experts, pair.weights, pair.index)
    size, experts, tokens, width = expert_size(shape.width), shape.experts, shape.tokens, shape.width
    b, m = precision.activation.itemsize, precision.master.itemsize
    forward = size * (m + b) + 12 * tokens * width * b
    backward = 8 * width**2 * (m + b) + 14 * tokens * width * b + 2 * size * m
    merging = experts * size * m + size * b
    expanding = 2 * size * m + experts * size * m
    product = 32 * tokens * width**2

    def each(call: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
        return {way: _by(way, call) for way in ways}

    @torch.no_grad()
    def merged() -> Tensor:
        return torch.ops.mote_fast.merge_experts(merge.experts, merge.weights, precision.activation)

    @torch.no_grad()
    def forward_only() -> Any:
        return torch.ops.mote_fast.expert_pair_ffn(
            pair.x_routed, pair.x_merged, pair.experts, pair.weights, pair.index, None
        )

    backend = "inductor" if device.type == "cuda" else "aot_eager"
    whole = {
        **each(lambda: cases.run_pair_factored(pair)),
        "eager": partial(plain_pair, pair, plain_forward),
        "compiled": partial(plain_pair, pair, torch.compile(plain_forward, backend=backend)),
    }
    return [
        Work("merge", merging, 2 * experts * size, each(merged)),
        Work("pair forward, with the merge", merging + forward, product, each(forward_only)),
        Work("pair forward and backward, factored", merging + forward + backward, 3 * product, whole),
        Work(
            "pair forward and backward, dense",
            merging + forward + backward + expanding,
            3 * product,
            each(lambda: cases.run_pair(pair)),
        ),
        Work(
            "routed forward and backward",
            (experts + 1) * size * m + 13 * tokens * width * b + 8 * experts * width**2 * m,
            1.5 * product,
            each(lambda: cases.run_routed(routed)),
        ),
        Work("adamw", 6 * experts * size * m + 2 * size * m, 12 * experts * size, {w: adamw.by(w) for w in ways}),
    ]


def activation_work(precision: Precision, device: torch.device, ways: tuple[Implementation, ...], rows: int) -> Work:
    """QuickGELU of the hidden layer of ViT-B/16's tower, forward and backward: two passes and three."""
    x, dy = (torch.randn(rows, 3072, device=device).to(precision.activation) for _ in range(2))
    leaf = cases.leaf(x)

    def run(function: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.autograd.grad(function(leaf), leaf, dy)[0]

    compiled = torch.compile(quick_gelu, backend="inductor" if device.type == "cuda" else "aot_eager")
    calls: dict[str, Callable[[], Any]] = {way: _by(way, partial(run, activation.quick_gelu)) for way in ways}
    calls |= {"eager": partial(run, quick_gelu), "compiled": partial(run, compiled)}
    return Work("QuickGELU forward and backward", 5 * x.nbytes, 20 * x.numel(), calls)


def _by(way: Implementation, call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with implemented_by(way):
            return call()

    return run


class _Optimizer:
    """An update of one layer's experts with one factor, numbers on the device."""

    def __init__(self, experts: Tensor, weights: Tensor, index: Tensor) -> None:
        self._state = [experts.clone(), torch.zeros_like(experts), torch.zeros_like(experts)]
        self._factor = (*torch.randn_like(experts[:1].expand(2, -1)).unbind(), weights, index)
        self._step, self._lr = torch.ones((), device=experts.device), torch.full((), 1e-5, device=experts.device)

    def by(self, way: Implementation) -> Callable[[], None]:
        def run() -> None:
            update = launchers("factored_adamw", way).adamw_factored
            param, mean, square = self._state
            update(param, mean, square, [self._factor], self._step, self._lr, (0.9, 0.999), 1e-8, 0.2)

        return run


def plain_forward(
    x_routed: Tensor, x_merged: Tensor, experts: Tensor, weights: Tensor, index: Tensor
) -> tuple[Tensor, Tensor]:
    """The official recipe in PyTorch over stacked experts: one is selected, and all are merged."""

    def ffn(x: Tensor, row: Tensor) -> Tensor:
        expert = unpack_expert(row.to(x.dtype), x.shape[-1])
        return F.linear(quick_gelu(F.linear(x, expert.w_up, expert.b_up)), expert.w_down, expert.b_down)

    routed = experts.index_select(0, index.reshape(1)).squeeze(0)
    return ffn(x_routed, routed), ffn(x_merged, weights.to(experts.dtype) @ experts)


def plain_pair(given: cases.PairInputs, forward: Callable[..., tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Outputs and dense gradients of ``plain_forward``, or of a compiled form of it."""
    leaves = [cases.leaf(each) for each in (given.x_routed, given.x_merged, given.experts)]
    y = forward(*leaves, given.weights, given.index)
    return [*y, *torch.autograd.grad(y, leaves, (given.dy_routed, given.dy_merged))]
