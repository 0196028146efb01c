"""Each launch of the Triton kernels of one layer by itself: its bytes, its flops, and the same product by cuBLAS."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from device.layer_work import Work
from mote_fast.device_check import expert_cases as cases
from mote_fast.device_check.expert_cases import PairInputs, Precision, RoutedInputs, Shape
from mote_fast.kernels.reference import EXPANSION, expert_size
from mote_fast.ops.implementations import launchers

# The launches of one layer, in their order.
PAIR = ("merge and cast", "up", "down", "dpre", "dw_down", "dw_up", "dx", "expansion")
ROUTED = ("group", "up", "down", "dpre", "dw_down", "dw_up", "dx")
# The modules that launch kernels of the experts.
MODULES = ("merge", "expert_ffn", "routed_ffn")


def launch_work(shape: Shape, precision: Precision, device: torch.device) -> list[Work]:
    """The work of each launch; with Triton's kernels alone.

    Raises:
        ValueError: a layer launches another number of kernels than this file knows.
    """
    pair, routed = cases.pair_inputs(shape, precision, device), cases.routed_inputs(shape, precision, device)
    with _recorded() as launches:
        _run_pair(pair)
    found = _named("pair", PAIR, launches)
    with _recorded() as launches:
        _run_routed(routed)
    found |= _named("routed", ROUTED, launches)
    counts = _counts(shape, precision)
    blas = _products(shape, precision, device)
    return [
        Work(name, *counts[name], {"triton": call} | ({"cuBLAS product": blas[name]} if name in blas else {}))
        for name, call in found.items()
    ]


def _run_pair(given: PairInputs) -> None:
    part = launchers("expert_ffn", "triton")
    x, index = (given.x_routed, given.x_merged), given.index
    *_, saved, rows = part.expert_pair_forward(*x, given.experts, given.weights, index)
    dy = (given.dy_routed, given.dy_merged)
    *_, grads = part.expert_pair_backward(*dy, *x, given.experts, rows, index, saved)
    part.expand_expert_gradient(grads[1], grads[0], given.weights, index)


def _run_routed(given: RoutedInputs) -> None:
    part = launchers("routed_ffn", "triton")
    _, saved = part.routed_forward(given.x, given.experts, given.index)
    part.routed_backward(given.dy, given.x, given.experts, given.index, saved)


@contextmanager
def _recorded() -> Iterator[list[Callable[[], None]]]:
    """Yield a list that receives every launch, to be made again on the same memory."""
    launches: list[Callable[[], None]] = []
    with ExitStack() as stack:
        for name in MODULES:
            module = importlib.import_module(f"mote_fast.kernels.{name}")

            def record(*args: Any, launch: Callable[..., None] = module.launch, **options: Any) -> None:
                launches.append(partial(launch, *args, **options))
                launch(*args, **options)

            stack.enter_context(patch.object(module, "launch", record))
        yield launches


def _named(operator: str, names: tuple[str, ...], launches: list[Callable[[], None]]) -> dict[str, Callable[[], None]]:
    if len(launches) != len(names):
        raise ValueError(f"{operator}: {len(launches)} launches, and names for {len(names)}: {', '.join(names)}")
    return {f"{operator}: {name}": call for name, call in zip(names, launches, strict=True)}


def _counts(shape: Shape, precision: Precision) -> dict[str, tuple[float, float]]:
    """Bytes that each launch must move, and its flops; as in docs/kernels.md."""
    size, experts, tokens, width = expert_size(shape.width), shape.experts, shape.tokens, shape.width
    b, m = precision.activation.itemsize, precision.master.itemsize
    weights, row, hidden = EXPANSION * width**2, tokens * width, EXPANSION * tokens * width
    flops = 2 * EXPANSION * tokens * width**2
    one_stream = {
        "up": b * (weights + row + 2 * hidden),
        "down": b * (weights + hidden + row),
        "dpre": b * (weights + row + 2 * hidden),
        "dw_down": b * (row + hidden) + m * weights,
        "dw_up": b * (row + hidden) + m * weights,
        "dx": b * (weights + hidden + row),
    }
    found = {f"pair: {name}": (2.0 * nbytes, 2.0 * flops) for name, nbytes in one_stream.items()}
    # Every expert's weights are read, and its gradient is written.
    for name, nbytes in one_stream.items():
        more = (experts - 1) * weights * (m if name.startswith("dw") else b)
        found[f"routed: {name}"] = (float(nbytes + more), float(flops))
    found["pair: merge and cast"] = (float(experts * size * m + 2 * size * b), 2.0 * experts * size)
    found["pair: expansion"] = (float(2 * size * m + experts * size * m), 2.0 * experts * size)
    found["routed: group"] = (12.0 * shape.clips, 0.0)
    return found


def _products(shape: Shape, precision: Precision, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """The bare products of both streams as one batch: without bias, activation or sums, which the kernels include."""
    tokens, width, hidden = shape.tokens, shape.width, EXPANSION * shape.width
    narrow, wide = (
        torch.randn(2, tokens, columns, device=device).to(precision.activation) for columns in (width, hidden)
    )
    up, down = (
        torch.randn(2, *size, device=device).to(precision.activation) for size in ((width, hidden), (hidden, width))
    )
    return {
        "pair: up": partial(torch.bmm, narrow, up),
        "pair: down": partial(torch.bmm, wide, down),
        "pair: dpre": partial(torch.bmm, narrow, down.mT),
        "pair: dw_down": partial(torch.bmm, narrow.mT, wide),
        "pair: dw_up": partial(torch.bmm, wide.mT, narrow),
        "pair: dx": partial(torch.bmm, wide, up.mT),
    }
