"""Section 2: values and gradients of every operator against float64 on the same device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mote_fast.device_check import expert_cases as cases
from mote_fast.device_check.check import Check, attempt, bounded, error_of, holds, skipped
from mote_fast.device_check.check_setting import CheckSetting
from mote_fast.device_check.expert_cases import PRECISIONS, VIT_B_16, VIT_L_14, Precision, Shape
from mote_fast.device_check.timing import device_times
from mote_fast.kernels import reference
from mote_fast.kernels.reference import EXPANSION, expert_size
from mote_fast.ops.activation import quick_gelu
from mote_fast.ops.implementations import Implementation, implemented_by, launchers


@dataclass(frozen=True)
class Operator:
    """How to draw the inputs of an operator, run it and know its truth."""

    name: str
    draw: Callable[[Shape, Precision, torch.device], Any]
    run: Callable[[Any], list[Tensor]]
    truth: Callable[[Any], list[Tensor]]
    # The place of the gradient of the merge weights among the results.
    dot_product: int | None = None


OPERATORS = (
    Operator("pair", cases.pair_inputs, cases.run_pair, cases.pair_truth, 5),
    Operator("pair, factored", cases.pair_inputs, cases.run_pair_factored, cases.pair_factored_truth),
    Operator("routed", cases.routed_inputs, cases.run_routed, cases.routed_truth),
    Operator("merge", cases.merge_inputs, cases.run_merge, cases.merge_truth, 2),
)
SHAPES = (
    VIT_B_16,
    VIT_L_14,
    Shape("d=80 N=37", 80, 37, 1, 3),
    Shape("N=0", 64, 0, 8, 4),
    Shape("N=1", 64, 1, 1, 4),
    Shape("E=1", 128, 8, 8, 1),
    Shape("E=16", 256, 16, 8, 16),
)
DRY_SHAPES = (Shape("d=32 N=24", 32, 8, 3, 3), Shape("N=0", 16, 0, 8, 4), Shape("N=1 E=1", 16, 1, 1, 1))
# Offsets beyond 2**31 elements of activations, and a large grid.
LARGE = (Shape("d=1024 N=2^17 E=16", 1024, 2**14, 8, 16), Shape("2^31 activations", 1024, 2**15 + 1, 8, 2))
FOR_LAYOUTS = Shape("d=64 N=48", 64, 6, 8, 3)

# Bytes that the truth takes for each hidden value of a chunk, and the run for each hidden value: with room to spare.
TRUTH_BYTES, RUN_BYTES = 80, 12


def checks(setting: CheckSetting) -> Iterator[Check]:
    """Check values, layouts, the optimiser, repeatability and streams, the largest shapes last."""
    precisions = precisions_on(setting)
    yield from (skipped(each.name, _why_not(each, setting)) for each in PRECISIONS if each not in precisions)
    if why := setting.why_no_kernels():
        yield skipped("Triton's kernels", why)
    else:
        with implemented_by("triton"):
            yield from _of_implementation(setting, precisions, "triton")
            yield from _layouts(setting, precisions)
            yield from _repeated(setting, precisions)
    with implemented_by("torch"):
        yield from _of_implementation(setting, precisions, "torch")
    if not (why or setting.dry or setting.quick):
        with implemented_by("triton"):
            for shape in LARGE:
                yield from _large(setting, shape)


def _of_implementation(setting: CheckSetting, precisions: list[Precision], name: Implementation) -> Iterator[Check]:
    for shape, precision in itertools.product(_shapes(setting), precisions):
        for operator in OPERATORS:
            yield from _values(setting, operator, shape, precision, f"{name}: ")
    yield from attempt(f"{name}: adamw", lambda: _optimizer(setting, name))
    for precision in precisions[:3]:
        yield from attempt(f"{name}: quick_gelu, {precision.name}", partial(_activation, setting, name, precision))


def _activation(setting: CheckSetting, name: Implementation, precision: Precision) -> Iterator[Check]:
    """Contiguous, and with its rows and its memory's start at odd places."""
    x, dy = torch.randn(2, setting.size(1000, 5), 100, device=setting.device).to(precision.activation).unbind()
    for layout, lay_out in {"contiguous": lambda x: x, **cases.LAYOUTS}.items():
        at = cases.leaf(lay_out(x))
        y = quick_gelu(at)
        (dx,) = torch.autograd.grad(y, at, lay_out(dy))
        wide, slope = at.detach().double(), reference.quick_gelu_gradient(at.detach().double())
        error = error_of([y, dx], [reference.quick_gelu(wide), lay_out(dy).double() * slope])
        yield bounded(f"{name}: quick_gelu, {layout}, {precision.name}", error, precision.bound)


def _shapes(setting: CheckSetting) -> tuple[Shape, ...]:
    return setting.size((VIT_B_16, SHAPES[2]) if setting.quick else SHAPES, DRY_SHAPES)


def precisions_on(setting: CheckSetting) -> list[Precision]:
    """Return the precisions that this device computes in."""
    return [each for each in PRECISIONS if not _why_not(each, setting)]


def _why_not(precision: Precision, setting: CheckSetting) -> str:
    if torch.bfloat16 not in (precision.activation, precision.master):
        return ""
    if setting.dry:
        return "the interpreter's bfloat16 is wrong"
    return "" if not setting.on_gpu or torch.cuda.is_bf16_supported(False) else "this device has no bfloat16"


def _values(
    setting: CheckSetting, operator: Operator, shape: Shape, precision: Precision, prefix: str = ""
) -> Iterator[Check]:
    name = f"{prefix}{operator.name}, {shape.name}, {precision.name}"

    def run() -> Check:
        given = operator.draw(shape, precision, setting.device)
        return _against_truth(name, operator, given, precision.bound)

    return attempt(name, run)


def _against_truth(name: str, operator: Operator, given: Any, bound: float) -> Check:
    return bounded(name, _error(operator, operator.run(given), operator.truth(given)), bound)


def _error(operator: Operator, found: list[Tensor], truth: list[Tensor]) -> float:
    """The largest error; a dot product whose terms cancel counts a tenth."""
    at = operator.dot_product
    if at is None:
        return error_of(found, truth)
    rest = error_of([*found[:at], *found[at + 1 :]], [*truth[:at], *truth[at + 1 :]])
    return max(rest, error_of([found[at]], [truth[at]]) / cases.DOT_PRODUCT)


def _layouts(setting: CheckSetting, precisions: list[Precision]) -> Iterator[Check]:
    """Every tensor argument in every layout; results must be those of the float64 truth of the same values."""
    shape = setting.size(FOR_LAYOUTS, Shape("d=16 N=6", 16, 2, 3, 3))
    chosen = [each for each in precisions if each.name in ("float32", "mixed bf16")]
    for precision, operator in itertools.product(chosen, (OPERATORS[0], OPERATORS[2], OPERATORS[3])):
        given = operator.draw(shape, precision, setting.device)
        for argument, layout in itertools.product((f.name for f in fields(given)), cases.LAYOUTS):
            name = f"{operator.name}, {argument} {layout}, {precision.name}"
            changed = cases.laid_out(given, argument, layout)
            yield from attempt(name, partial(_against_truth, name, operator, changed, precision.bound))


def _optimizer(setting: CheckSetting, implementation: Implementation) -> Iterator[Check]:
    """One step from given moments, with one and two factors, numbers by value and on the device."""
    width = setting.size(512, 16)
    device, size, count = setting.device, expert_size(width), 4
    adamw = launchers("factored_adamw", implementation).adamw_factored
    for factors, on_device in itertools.product((1, 2), (False, True)):
        param, mean, square = torch.randn(3, count, size, device=device).unbind()
        square = square.square()
        weights = torch.full((count,), 1 / count, device=device)
        made = [
            (*torch.randn(2, size, device=device).unbind(), weights, torch.tensor(k, device=device))
            for k in range(factors)
        ]
        expected = reference.adamw_factored_step(
            param.double(),
            mean.double(),
            square.double(),
            [(g.double(), own.double(), w.double(), k) for g, own, w, k in made],
            3,
            1e-3,
        )
        numbers = [torch.tensor(number, device=device) if on_device else number for number in (3.0, 1e-3)]
        adamw(param, mean, square, made, *numbers, (0.9, 0.999), 1e-8, 0.2)
        name = f"{implementation}: adamw, {factors} factors, numbers {'on the device' if on_device else 'by value'}"
        yield bounded(name, error_of([param, mean, square], expected), cases.ADAMW_BOUND)


def _repeated(setting: CheckSetting, precisions: list[Precision]) -> Iterator[Check]:
    """The same bits twice, on another stream, and on another device than the current one."""
    precision = next((each for each in precisions if each.name == "mixed bf16"), precisions[0])
    shape = setting.size(VIT_B_16, DRY_SHAPES[0])
    for operator in OPERATORS:

        def run(operator: Operator = operator) -> Iterator[Check]:
            given = operator.draw(shape, precision, setting.device)
            once = operator.run(given)
            yield holds(f"{operator.name}, same bits twice", _equal(once, operator.run(given)))
            if not setting.on_gpu:
                return
            side = torch.cuda.Stream(setting.device)
            side.wait_stream(torch.cuda.current_stream(setting.device))
            with torch.cuda.stream(side):
                beside = operator.run(given)
            torch.cuda.current_stream(setting.device).wait_stream(side)
            yield holds(f"{operator.name}, on a side stream", _equal(once, beside))
            if torch.cuda.device_count() > 1:
                moved = type(given)(*(getattr(given, f.name).to("cuda:1") for f in fields(given)))
                elsewhere = [each.to(setting.device) for each in operator.run(moved)]
                yield bounded(f"{operator.name}, on cuda:1", error_of(elsewhere, once), precision.bound)

        yield from attempt(f"{operator.name}, repeated", run)
    if setting.on_gpu and torch.cuda.device_count() < 2:
        yield skipped("on cuda:1 while cuda:0 is current", "there is one device")


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _large(setting: CheckSetting, shape: Shape) -> Iterator[Check]:
    """bf16 activations alone, where memory and float64's speed allow."""
    precision = next(each for each in PRECISIONS if each.name == "mixed bf16")
    name = f"pair, {shape.name}, {precision.name}"
    hidden = EXPANSION * shape.width
    held = 2 * shape.tokens * hidden * RUN_BYTES + 3 * shape.experts * expert_size(shape.width) * 8
    needed = held + cases.CHUNK * hidden * TRUTH_BYTES + 2 * shape.tokens * shape.width * 48
    if needed > setting.memory():
        return iter([skipped(name, f"needs about {needed / 2**30:.0f} GiB")])
    side = 2048
    a = torch.randn(side, side, dtype=torch.float64, device=setting.device)
    rate = 2 * side**3 / device_times(lambda: a @ a, setting.device, 3, cold=False).median * 1e6
    # The truth computes forward twice.
    seconds = 2 * (16 + 48) * shape.tokens * shape.width**2 / rate
    if seconds > setting.left / 2 or not torch.cuda.is_bf16_supported(False):
        return iter([skipped(name, f"float64 would take about {seconds:.0f} s of {setting.left:.0f} s that are left")])
    return _values(setting, OPERATORS[1], shape, precision)
