"""Section 2: values and gradients of every operator against float64 on the same device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mote_fast.device_check import expert_cases as cases
from mote_fast.device_check.check import Check, attempt, bounded, error_of, holds, skipped
from mote_fast.device_check.check_setting import CheckSetting
from mote_fast.device_check.expert_cases import PRECISIONS, VIT_B_16, VIT_L_14, Precision, Shape
from mote_fast.device_check.optimizer_cases import FACTOR_PARTS, adamw_inputs, adamw_truth, run_adamw
from mote_fast.device_check.tile_choice import only_tiles, tile_pairs
from mote_fast.device_check.timing import device_times
from mote_fast.kernels.reference import EXPANSION, expert_size
from mote_fast.ops.implementations import Implementation, implemented_by


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
    Operator("quick_gelu", cases.activation_inputs, cases.run_activation, cases.activation_truth),
)
# The factored form of the pair has the same products.
WITH_PRODUCTS = (OPERATORS[0], OPERATORS[2])
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
            if not setting.quick:
                yield from _tiles(setting, precisions)
            yield from _repeated(setting, precisions)
    with implemented_by("torch"):
        yield from _of_implementation(setting, precisions, "torch")
    if not (why or setting.dry or setting.quick):
        with implemented_by("triton"):
            yield from attempt("quick_gelu, 2^31 values", lambda: _large_activation(setting))
            for shape in LARGE:
                yield from _large(setting, shape)


def _of_implementation(setting: CheckSetting, precisions: list[Precision], name: Implementation) -> Iterator[Check]:
    for shape, precision in itertools.product(_shapes(setting), precisions):
        for operator in OPERATORS:
            yield from _values(setting, operator, shape, precision, f"{name}: ")
    yield from attempt(f"{name}: adamw", lambda: _optimizer(setting, name))


def _shapes(setting: CheckSetting) -> tuple[Shape, ...]:
    return setting.size((VIT_B_16, SHAPES[2]) if setting.quick else SHAPES, DRY_SHAPES)


def precisions_on(setting: CheckSetting) -> list[Precision]:
    """Return the precisions that this device computes in."""
    return [each for each in PRECISIONS if not _why_not(each, setting)]


def _why_not(precision: Precision, setting: CheckSetting) -> str:
    if torch.bfloat16 not in (precision.activation, precision.master):
        return "a dry run tries it over float32 weights alone" if setting.dry and precision.name == "fp16" else ""
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


def _layouts_of(setting: CheckSetting) -> list[str]:
    """All layouts; one in a dry run, because the interpreter's own tests have them all."""
    return setting.size(list(cases.LAYOUTS), ["strided"])


def _layouts(setting: CheckSetting, precisions: list[Precision]) -> Iterator[Check]:
    """Every tensor argument in every layout; results must be those of the float64 truth of the same values."""
    shape = setting.size(FOR_LAYOUTS, Shape("d=16 N=6", 16, 2, 3, 3))
    chosen = [each for each in precisions if each.name in ("float32", "mixed bf16")]
    for precision, operator in itertools.product(chosen, (OPERATORS[0], *OPERATORS[2:])):
        given = operator.draw(shape, precision, setting.device)
        for argument, layout in itertools.product((f.name for f in fields(given)), _layouts_of(setting)):
            name = f"{operator.name}, {argument} {layout}, {precision.name}"
            changed = cases.laid_out(given, argument, layout)
            yield from attempt(name, partial(_against_truth, name, operator, changed, precision.bound))


def _tiles(setting: CheckSetting, precisions: list[Precision]) -> Iterator[Check]:
    """Each tile of the device's table, also those that the cost model never takes on a device like this."""
    for shape, precision in tiled(setting, precisions):
        itemsize = precision.activation.itemsize
        for pair, operator in itertools.product(tile_pairs(setting.device, itemsize), WITH_PRODUCTS):
            with only_tiles(pair, setting.device, itemsize):
                yield from _values(setting, operator, shape, precision, f"{pair.name}: ")


def tiled(setting: CheckSetting, precisions: list[Precision]) -> list[tuple[Shape, Precision]]:
    """Return the shapes, one that tiles divide and one that they do not, and the precisions that all tiles run."""
    if setting.dry:
        return [(DRY_SHAPES[0], _half(precisions))]
    chosen = [each for each in precisions if each.name == "float32"] + [_half(precisions)]
    return list(itertools.product((VIT_B_16, SHAPES[2]), chosen))


def _half(precisions: list[Precision]) -> Precision:
    """16-bit activations over float32 weights: bfloat16 where the device has it."""
    return next(each for each in precisions if each.name in ("mixed bf16", "mixed fp16"))


def _optimizer(setting: CheckSetting, implementation: Implementation) -> Iterator[Check]:
    """One step from given moments: numbers by value and on the device; then every layout of each part of a factor."""
    width = setting.size(512, 16)
    for factors, on_device in itertools.product((1, 2), (False, True)):
        given = adamw_inputs(width, factors, setting.device)
        error = error_of(run_adamw(given, implementation, on_device=on_device), adamw_truth(given))
        name = f"{implementation}: adamw, {factors} factors, numbers {'on the device' if on_device else 'by value'}"
        yield bounded(name, error, cases.ADAMW_BOUND)
    given = adamw_inputs(setting.size(64, 16), 1, setting.device)
    (factor,) = given.factors
    for (at, part), layout in itertools.product(enumerate(FACTOR_PARTS), _layouts_of(setting)):
        parts = [*factor[:at], cases.LAYOUTS[layout](factor[at]), *factor[at + 1 :]]
        changed = replace(given, factors=[parts])
        error = error_of(run_adamw(changed, implementation, on_device=False), adamw_truth(changed))
        yield bounded(f"{implementation}: adamw, {part} {layout}", error, cases.ADAMW_BOUND)


def _repeated(setting: CheckSetting, precisions: list[Precision]) -> Iterator[Check]:
    """The same bits twice, on another stream, on another device than the current one; cuBLAS's within the bound."""
    precision = _half(precisions)
    shape = setting.size(VIT_B_16, DRY_SHAPES[0])
    for operator in OPERATORS:

        def run(operator: Operator = operator) -> Iterator[Check]:
            given = operator.draw(shape, precision, setting.device)
            once = operator.run(given)
            yield holds(f"{operator.name}, same bits twice", _equal(once, operator.run(given)))
            with implemented_by("torch"):
                plain = operator.run(given)
            yield bounded(f"{operator.name}, against cuBLAS", _error(operator, once, plain), precision.bound)
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


def _large_activation(setting: CheckSetting) -> Iterator[Check]:
    """Offsets beyond 2**31, compared some rows at a time."""
    name, columns = "quick_gelu, 2^31 values", 4096
    rows = 2**31 // columns + 1
    if setting.memory() < 5 * 2 * rows * columns:
        yield skipped(name, "needs about 20 GiB")
        return
    precision = _half(precisions_on(setting))
    given = cases.ActivationInputs(
        *(torch.empty(rows, columns, dtype=precision.activation, device=setting.device).normal_() for _ in range(2))
    )
    found = cases.run_activation(given)
    parts = zip(*(each.split(cases.CHUNK) for each in (given.x, given.dy, *found)), strict=True)
    worst = max(error_of([y, dx], cases.activation_truth(cases.ActivationInputs(x, dy))) for x, dy, y, dx in parts)
    yield bounded(name, worst, precision.bound)


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
