"""Section 5: CUDA graphs of the head's step, and training steps in which the host waits for nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from device.training_case import (
    DRY_HEADS,
    HEADS,
    LOGIT_SCALE,
    METHOD,
    HeadCase,
    captured_step_of,
    small_batches,
    small_model,
)
from mote_fast.device_check import expert_cases
from mote_fast.device_check.check import Check, attempt, bounded, error_of, holds, skipped
from mote_fast.device_check.check_setting import CheckSetting
from mote_fast.device_check.timing import WARMUP, captured
from mote_fast.training.captured_step import EAGER_STEPS
from mote_fast.training.losses import training_loss
from mote_fast.training.optim import head_optimizer

REPLAYS, LR = 3, 1e-4
# Replays run the same kernels on the same numbers; attention's backward may add in another order.
BOUND = 1e-5


def checks(setting: CheckSetting) -> Iterator[Check]:
    """Capture and replay with new draws, then forbid waiting."""
    for name, sizes in setting.size(HEADS, DRY_HEADS).items():
        yield from attempt(f"head {name}, captured", lambda n=name, s=sizes: _captured(n, HeadCase(*s, setting.device)))
        title = f"head {name}, whole step captured"
        yield from attempt(title, lambda t=title, s=sizes: _whole_step(t, HeadCase(*s, setting.device)))
    yield from attempt("quick_gelu, captured", lambda: _activation(setting))
    yield from attempt("head's step waits for nothing", lambda: _head_step(setting))
    yield from attempt("training step waits for nothing", lambda: _training_step(setting))


def _captured(name: str, case: HeadCase) -> Iterator[Check]:
    """Forward and backward in one graph, replayed with other experts and temperatures."""
    if case.features.device.type != "cuda":
        # The same calls, for a dry run.
        case.take(case.new_draws())
        yield bounded(f"head {name}, again", error_of(case.gradients(), case.gradients()), BOUND)
        yield skipped(f"head {name}, captured", "CUDA graphs need a GPU")
        return
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP):
            case.gradients()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = case.gradients()
    for number in range(REPLAYS):
        case.take(case.new_draws())
        graph.replay()
        torch.cuda.synchronize()
        replayed = [each.clone() for each in found]
        yield bounded(f"head {name}, replay {number}", error_of(replayed, case.gradients()), BOUND)


def _activation(setting: CheckSetting) -> Iterator[Check]:
    """The tower's activation, forward and backward, replayed on other values in the same memory."""
    precision = expert_cases.PRECISIONS[setting.size(2, 0)]
    given = expert_cases.activation_inputs(expert_cases.Shape("hidden", 96, 5, 7, 1), precision, setting.device)
    found: list[Tensor] = []

    def run() -> None:
        found[:] = expert_cases.run_activation(given)

    replay = captured(run, setting.device).replay if setting.on_gpu else run
    for number in range(REPLAYS):
        given.x.normal_()
        replay()
        same = all(torch.equal(a, b) for a, b in zip(found, expert_cases.run_activation(given), strict=True))
        yield holds(f"quick_gelu, replay {number}", same, "" if setting.on_gpu else "only tried")


def _whole_step(name: str, case: HeadCase) -> Iterator[Check]:
    """``CapturedStep``, the optimiser in the graph, against ordinary steps; replays must not make the host wait."""
    other = copy.deepcopy(case.head)
    clips, frames, _ = case.features.shape
    step = captured_step_of(case)
    optimizer = head_optimizer(other, lr=LR)
    found, expected = [], []
    for number in range(EAGER_STEPS + 1 + REPLAYS):
        features, draws = torch.randn(clips, frames, case.head.embed_dim), case.new_draws()
        with no_waiting(case.features.device) if number > EAGER_STEPS else nullcontext():
            found.append(step(features, case.labels, draws, LR).clone())
        given = (features.to(case.features.device), case.classes, case.labels, LOGIT_SCALE)
        loss = training_loss(other, *given, draws=draws.to(case.features.device))
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        expected.append(torch.stack([loss.total, loss.routed, loss.merged, loss.mse]).detach())
    yield bounded(f"{name}: losses of {len(found)} steps", error_of(found, expected), 1e-4)
    pairs = list(zip(case.head.parameters(), other.parameters(), strict=True))
    difference = torch.cat([(a - b).detach().flatten() for a, b in pairs]).norm()
    moved = torch.cat([b.detach().flatten() for _, b in pairs]).norm()
    yield bounded(f"{name}: parameters after them", (difference / moved).item(), 1e-3)


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Make every wait of the host for the device an error."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _head_step(setting: CheckSetting) -> Check:
    """The head alone with the factored optimiser: what trains on cached features."""
    case = HeadCase(*setting.size(HEADS, DRY_HEADS)[setting.size("B/16", "small")], setting.device)
    optimizer = head_optimizer(case.head, lr=1e-3)

    def step() -> None:
        case.loss(case.new_draws().to(setting.device)).backward()
        optimizer.clip_grad_norm_(1.0)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(2):
        step()
    with no_waiting(setting.device):
        step()
    return holds("head's step waits for nothing", True, "" if setting.on_gpu else "only tried")


def _training_step(setting: CheckSetting) -> Check:
    """Image tower and head, two batches, clipped, in bfloat16 (float16's loss scaler waits by design)."""
    from mote_fast.training.build import build_optimizer
    from mote_fast.training.config.sections import OptimConfig
    from mote_fast.training.step import Arithmetic, Objective, draws_of_step, train_step

    model = small_model(setting.device)
    objective, optimizer = Objective(model, METHOD), build_optimizer(model, OptimConfig())
    arithmetic = Arithmetic("bf16", setting.device)

    def step(number: int) -> None:
        draws = draws_of_step(model.head, METHOD, 2, seed=0, step=number, rank=0)
        train_step(objective, optimizer, iter(batches), draws, arithmetic, clip_gradient=1.0)

    batches = small_batches(2, setting.device)
    for number in range(2):
        step(number)
    with no_waiting(setting.device):
        step(2)
    return holds("training step waits for nothing", True, "" if setting.on_gpu else "only tried")
