"""Section 4: torch.compile of the operators, the head's loss and the image tower, each as one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from device.training_case import DRY_HEADS, HEADS, HeadCase, small_batches, small_model
from mote_fast.device_check import expert_cases as cases
from mote_fast.device_check.check import Check, attempt, bounded, error_of, holds
from mote_fast.device_check.check_setting import CheckSetting
from mote_fast.ops import operators
from mote_fast.ops.activation import quick_gelu

SHAPE = cases.Shape("d=64 N=16", 64, 4, 4, 3)
# Both sides run the same kernels on the same inputs; what is fused between them rounds otherwise.
BOUND = 1e-4


def checks(setting: CheckSetting) -> Iterator[Check]:
    """Compile with Inductor, or with AOTAutograd alone where the run is dry."""
    backend = setting.size("inductor", "aot_eager")
    for dynamic in (False, True):
        name = f"operators, {backend}, {'dynamic' if dynamic else 'static'}"
        yield from attempt(name, partial(_operators, name, backend, dynamic, setting))
    # One head: what differs in the other is its size.
    name, sizes = next(iter(setting.size(HEADS, DRY_HEADS).items()))
    for dynamic in setting.size((False, True), (False,)):
        full = f"head's loss, {name}, {backend}, {'dynamic' if dynamic else 'static'}"
        yield from attempt(full, partial(_head, full, backend, dynamic, HeadCase(*sizes, setting.device)))
    yield from attempt("image tower", lambda: _tower(backend, setting))


def _operators(name: str, backend: str, dynamic: bool, setting: CheckSetting) -> Check:
    torch.compiler.reset()
    pair = cases.pair_inputs(SHAPE, cases.PRECISIONS[0], setting.device)
    routed = cases.routed_inputs(SHAPE, cases.PRECISIONS[0], setting.device)

    def run(x_routed: Tensor, x_merged: Tensor, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        y_routed, y_merged = operators.expert_pair_ffn(x_routed, x_merged, experts, weights, pair.index)
        alone = operators.routed_ffn(x, experts, routed.index)
        merged = operators.merge_experts(experts, weights)
        return sum(y.square().mean() for y in (y_routed, y_merged, quick_gelu(alone), merged))  # pyright: ignore[reportReturnType]

    inputs = [cases.leaf(each) for each in (pair.x_routed, pair.x_merged, routed.x, pair.experts, pair.weights)]
    compiled = torch.compile(run, fullgraph=True, backend=backend, dynamic=dynamic)
    found, expected = (_values_and_gradients(function, inputs) for function in (compiled, run))
    return bounded(name, error_of(found, expected), BOUND)


def _values_and_gradients(run: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    y = run(*inputs)
    return [y, *torch.autograd.grad(y, inputs)]


def _head(name: str, backend: str, dynamic: bool, case: HeadCase) -> Iterator[Check]:
    """Draws given as tensors feed one graph; new ones must not compile again."""
    torch.compiler.reset()
    eager = case.loss
    leaves = [case.features, *case.head.parameters()]
    compiled: Any = torch.compile(lambda: eager(), fullgraph=True, backend=backend, dynamic=dynamic)
    for number in range(2):
        case.take(case.new_draws())
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            loss = compiled()
        found = [loss, *torch.autograd.grad(loss, leaves)]
        yield bounded(f"{name}, draws {number}", error_of(found, case.gradients()), BOUND)


def _tower(backend: str, setting: CheckSetting) -> Iterator[Check]:
    """One graph and no breaks, in training and in inference; other numbers of frames without another graph."""
    torch.compiler.reset()
    model = small_model(setting.device)
    (batch,) = small_batches(1, setting.device)
    pixels = batch.pixels.flatten(0, 1)
    explained = torch._dynamo.explain(model.clip.run_vision_tower)(pixels)
    graphs, breaks = explained.graph_count, explained.graph_break_count
    yield holds("image tower is one graph", (graphs, breaks) == (1, 0), f"{graphs} graphs, {breaks} breaks")
    expected = model.clip.encode_frames(pixels)
    parameters = [each for each in model.clip.model.visual.parameters() if each.requires_grad]
    truth = torch.autograd.grad(expected.square().mean(), parameters, allow_unused=True)
    torch.compiler.reset()
    model.clip.compiler.compile(fullgraph=True, backend=backend)
    found = model.clip.encode_frames(pixels)
    gradients = torch.autograd.grad(found.square().mean(), parameters, allow_unused=True)
    pairs = [
        (mine, other) for mine, other in zip(gradients, truth, strict=True) if mine is not None and other is not None
    ]
    yield bounded("image tower, compiled, values", error_of([found], [expected]), BOUND)
    gradient_error = error_of([mine for mine, _ in pairs], [other for _, other in pairs])
    yield bounded("image tower, compiled, gradients", gradient_error, 10 * BOUND)
    with torch.no_grad():
        model.clip.encode_frames(pixels)
        with torch._dynamo.config.patch(error_on_recompile=True):
            fewer = model.clip.encode_frames(pixels[:-1])
    yield bounded("image tower, one frame less", error_of([fewer], [expected[:-1]]), BOUND)
