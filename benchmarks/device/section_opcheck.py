"""Section 3: the registrations of the operators, and what they say of dtypes that they do not take."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

import mote_fast.ops.activation  # noqa: F401  # registers two of the operators
from mote_fast.device_check import expert_cases as cases
from mote_fast.device_check.check import Check, attempt, bounded, error_of, holds, skipped
from mote_fast.device_check.check_setting import CheckSetting
from mote_fast.errors import MoteError

SHAPE = cases.Shape("d=64 N=16", 64, 4, 4, 3)
TESTS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def checks(setting: CheckSetting) -> Iterator[Check]:
    """``torch.library.opcheck`` of each operator, then float64."""
    bf16 = not setting.on_gpu or torch.cuda.is_bf16_supported(False)
    for precision in (cases.PRECISIONS[0], cases.PRECISIONS[1 if bf16 else 2]):
        for name, arguments in operator_arguments(precision, setting.device).items():
            operator = getattr(torch.ops.mote_fast, name.split(",")[0]).default
            full = f"{name}, {precision.name}"
            yield from attempt(full, partial(_opcheck, full, operator, arguments))
    yield from attempt("float64", lambda: _float64(setting))


def operator_arguments(
    precision: cases.Precision, device: torch.device, shape: cases.Shape = SHAPE
) -> dict[str, tuple[object, ...]]:
    """The arguments of each operator by its name; where a form has another name, that follows a comma."""
    ops = torch.ops.mote_fast
    pair, routed = cases.pair_inputs(shape, precision, device), cases.routed_inputs(shape, precision, device)
    merge = cases.merge_inputs(shape, precision, device)
    x, stack = (pair.x_routed, pair.x_merged), pair.experts
    probe = stack.new_empty(1).expand(2, stack.shape[1])
    *_, saved, merged = ops.expert_pair_ffn(*x, stack, pair.weights, pair.index, None)
    _, *kept = ops.routed_ffn(routed.x, routed.experts, routed.index)
    dy = (pair.dy_routed, pair.dy_merged)
    backward = (*dy, *x, stack, pair.weights, pair.index, saved, merged)
    leaf = cases.leaf

    leaves = (leaf(x[0]), leaf(x[1]))
    return {
        "quick_gelu": (leaf(x[0]),),
        "quick_gelu_backward": (dy[0], x[0]),
        "merge_experts": (leaf(merge.experts), leaf(merge.weights), None),
        "merge_experts_backward": (merge.grad, merge.experts, merge.weights, True),
        "expert_pair_ffn": (*leaves, leaf(stack), leaf(pair.weights), pair.index, None),
        "expert_pair_ffn, with a probe": (*leaves, stack, pair.weights, pair.index, leaf(probe)),
        "expert_pair_ffn_backward, dense": (*backward, True, True),
        "expert_pair_ffn_backward, factored": (*backward, False, False),
        "routed_ffn": (leaf(routed.x), leaf(routed.experts), routed.index),
        "routed_ffn_backward": (routed.dy, routed.x, routed.experts, routed.index, *kept),
    }


def _opcheck(name: str, operator: Any, arguments: tuple[object, ...]) -> Check:
    found = torch.library.opcheck(operator, arguments, test_utils=TESTS, raise_exception=False)
    failed = [f"{test}: {outcome}" for test, outcome in found.items() if outcome != "SUCCESS"]
    return holds(name, not failed, "; ".join(failed)[:400])


def _float64(setting: CheckSetting) -> Iterator[Check]:
    """float64 is either exact or refused by an error of the library: gradient checks must not die in a kernel."""
    precision = cases.Precision("float64", torch.float64, torch.float64, 1e-12)
    given = cases.pair_inputs(SHAPE, precision, setting.device)
    try:
        found = cases.run_pair(given)
    except MoteError as error:
        yield skipped("pair, float64", f"refused: {error}")
        return
    # Merge weights are float32, as in training.
    yield bounded("pair, float64", error_of(found[:5], cases.pair_truth(given)[:5]), precision.bound)
