"""Section 8: one layer's experts and the head's step by every way there is, on the device alone and with the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from device.launch_work import launch_work
from device.layer_work import Work, activation_work, layer_work
from device.predicted_times import predicted_us
from device.training_case import DRY_HEADS, HEADS, LOGIT_SCALE, HeadCase, Sizes, captured_step_of
from mote_fast.device_check import expert_cases as cases
from mote_fast.device_check.check import Check, attempt, skipped
from mote_fast.device_check.check_setting import CheckSetting
from mote_fast.device_check.expert_cases import PRECISIONS, Precision, Shape
from mote_fast.device_check.timing import captured, device_times, host_times
from mote_fast.ops.implementations import Implementation, implemented_by
from mote_fast.training.captured_step import EAGER_STEPS
from mote_fast.training.optim import head_optimizer

SAMPLES, LR = 30, 1e-5


def checks(setting: CheckSetting) -> Iterator[Check]:
    """Replays of CUDA graphs with a cold second-level cache; then the same calls as the host makes them."""
    bf16 = not setting.on_gpu or torch.cuda.is_bf16_supported(False)
    precision = PRECISIONS[1 if bf16 else 2]
    ways: tuple[Implementation, ...] = ("cpu", "torch")
    if setting.on_gpu:
        ways = ("torch",) if setting.why_no_kernels() else ("triton", "torch")
    shapes = setting.size((cases.VIT_B_16, cases.VIT_L_14), (Shape("small", 32, 2, 3, 3),))
    for shape in shapes:
        yield from attempt(shape.name, partial(_layer, setting, shape, precision, ways))
    for shape in shapes:
        yield from attempt(f"{shape.name}, kernels", partial(_launches, setting, shape, precision))
    yield from attempt("QuickGELU", lambda: _quick_gelu(setting, precision, ways))
    for name, sizes in setting.size(HEADS, DRY_HEADS).items():
        yield from attempt(f"head {name}", partial(_heads, setting, name, sizes, precision, ways))


def _layer(
    setting: CheckSetting, shape: Shape, precision: Precision, ways: tuple[Implementation, ...]
) -> Iterator[Check]:
    for work in layer_work(shape, precision, setting.device, ways):
        yield from _ways(setting, shape, precision, work)


def _quick_gelu(setting: CheckSetting, precision: Precision, ways: tuple[Implementation, ...]) -> Iterator[Check]:
    """The hidden layer of 64 frames."""
    tower = Shape("B/16's tower", 768, setting.size(64, 1), setting.size(197, 8), 1)
    yield from _ways(setting, tower, precision, activation_work(precision, setting.device, ways, tower.tokens))


def _ways(setting: CheckSetting, shape: Shape, precision: Precision, work: Work) -> Iterator[Check]:
    for way, call in work.calls.items():
        name = f"{shape.name}, {precision.name}, {work.name}: {way}"
        if setting.left < setting.size(5, 0):
            yield skipped(name, "no time is left")
        else:
            yield from attempt(name, partial(_time, setting, shape, name, work, call))


def _time(setting: CheckSetting, shape: Shape, name: str, work: Work, call: Callable[[], Any]) -> Check:
    samples = setting.size(SAMPLES, 2)
    host = host_times(call, setting.device, samples)
    alone = captured(call, setting.device).replay if setting.on_gpu else call
    times = device_times(alone, setting.device, samples)
    figures: dict[str, Any] = {"us": times.median, "p20": times.p20, "p80": times.p80, "host us": host.median}
    figures |= {"GB/s": work.nbytes / times.median / 1e3, "TFLOP/s": work.flops / times.median / 1e6}
    copy, product = setting.figure("copy GB/s"), setting.figure("product TFLOP/s")
    if copy and product:
        # What the measured peaks would allow, if bytes and flops overlapped.
        floor = max(work.nbytes / copy / 1e3, work.flops / product / 1e6)
        figures |= {"% of copy": 100 * figures["GB/s"] / copy, "% of product": 100 * figures["TFLOP/s"] / product}
        figures |= {"floor us": floor, "over floor": times.median / floor}
    if setting.on_gpu:
        predicted = predicted_us(shape.name, work.name, work.nbytes, work.flops)
        figures |= {"predicted us, H100": predicted, "measured / predicted": times.median / predicted}
    return Check(name, "figure", figures=figures)


def _launches(setting: CheckSetting, shape: Shape, precision: Precision) -> Iterator[Check]:
    """Each kernel by itself: what a layer's time is made of, and what cuBLAS takes for the product alone."""
    if why := setting.why_no_kernels():
        yield skipped(f"{shape.name}, kernels", why)
        return
    if setting.dry:
        # bfloat16 is wrong under the interpreter, and each launch takes it a third of a second.
        for work in launch_work(shape, PRECISIONS[0], setting.device):
            for way, call in work.calls.items():
                call()
                yield skipped(f"{work.name}: {way}", "only tried")
        return
    for work in launch_work(shape, precision, setting.device):
        yield from _ways(setting, shape, precision, work)


def _heads(
    setting: CheckSetting,
    name: str,
    sizes: Sizes,
    precision: Precision,
    ways: tuple[Implementation, ...],
) -> Iterator[Check]:
    """The head's whole step: the host queues it, or a graph replays its forward and backward."""
    for way in ways:
        with implemented_by(way):
            yield from attempt(f"head {name}, {way}", partial(_head, setting, f"head {name}, {way}", sizes, precision))
    yield from attempt(f"head {name}, official recipe", partial(_official, setting, name, sizes, precision))


def _head(setting: CheckSetting, name: str, sizes: Sizes, precision: Precision) -> Iterator[Check]:
    yield _ordinary(setting, f"{name}, step", HeadCase(*sizes, setting.device), precision)
    case = HeadCase(*sizes, setting.device)
    step = captured_step_of(case, torch.bfloat16 if precision.activation == torch.bfloat16 else None)
    features, draws = case.features.detach(), case.new_draws()
    for _ in range(EAGER_STEPS + 1):
        step(features, case.labels, draws, LR)
    yield _steps(setting, f"{name}, step, captured", lambda: step(features, case.labels, draws, LR))


def _ordinary(setting: CheckSetting, name: str, case: HeadCase, precision: Precision) -> Check:
    optimizer = head_optimizer(case.head, lr=LR)

    def step() -> None:
        with _autocast(setting, precision):
            loss = case.loss()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        case.features.grad = None

    return _steps(setting, name, step)


def _official(setting: CheckSetting, name: str, sizes: Sizes, precision: Precision) -> Check:
    from official import OfficialHead

    case = HeadCase(*sizes, setting.device)
    head = OfficialHead(case.head)
    optimizer = torch.optim.AdamW(head.parameters(), lr=LR, fused=True)
    draws = case.new_draws()

    def step() -> None:
        with _autocast(setting, precision):
            given = (case.features, case.classes, case.labels)
            loss = head.loss(*given, LOGIT_SCALE, draws.experts, draws.temperatures)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        case.features.grad = None

    return _steps(setting, f"head {name}, official recipe, step", step)


def _steps(setting: CheckSetting, name: str, step: Callable[[], Any]) -> Check:
    samples = setting.size(SAMPLES, 2)
    host = host_times(step, setting.device, samples)
    device = device_times(step, setting.device, samples, cold=False)
    return Check(
        name, "figure", figures={"us": device.median, "p20": device.p20, "p80": device.p80, "host us": host.median}
    )


def _autocast(setting: CheckSetting, precision: Precision) -> Any:
    if precision.activation == torch.float32:
        return nullcontext()
    return torch.autocast(setting.device.type, precision.activation)
