"""Section 6: training steps on the device against the CPU, precisions, an overflow, accumulation, golden numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from device.training_case import METHOD, small_batches, small_model
from mote_fast.device_check.check import Check, attempt, bounded, error_of, holds, skipped
from mote_fast.device_check.check_setting import CheckSetting
from mote_fast.training.losses import training_loss
from mote_fast.training.method import Draws
from mote_fast.training.optim import head_optimizer

if TYPE_CHECKING:
    from mote_fast.model.classifier import VideoClassifier

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
CPU = torch.device("cpu")
STEPS, LR = 10, 1e-3
SAME, ROUGH = 1e-4, 2e-2


def checks(setting: CheckSetting) -> Iterator[Check]:
    """Run the same steps in several ways."""
    yield from attempt("losses against the CPU", lambda: _against_cpu(setting))
    yield from attempt("half precision", lambda: _half(setting))
    yield from attempt("overflow in float16", lambda: _overflow(setting))
    yield from attempt("golden numbers", lambda: _golden(setting))
    yield from attempt("resumed", lambda: _resumed(setting))


def run_steps(
    model: VideoClassifier, device: torch.device, steps: int, precision: Any = "fp32", accumulation: int = 1
) -> Tensor:
    """Losses of some steps, float32 [steps, 4]."""
    from mote_fast.training.build import build_optimizer
    from mote_fast.training.config.sections import OptimConfig
    from mote_fast.training.step import Arithmetic, Objective, draws_of_step, train_step

    objective, optimizer = Objective(model, METHOD), build_optimizer(model, OptimConfig(lr=LR))
    arithmetic, batches = Arithmetic(precision, device), small_batches(accumulation, device)
    losses = []
    for step in range(steps):
        draws = draws_of_step(model.head, METHOD, accumulation, seed=0, step=step, rank=0)
        losses.append(train_step(objective, optimizer, iter(batches), draws, arithmetic).losses)
    return torch.stack(losses).cpu()


def _against_cpu(setting: CheckSetting) -> Iterator[Check]:
    """Gradients stay factored with two batches, and become dense with three: two rows each outweigh four experts."""
    steps = setting.size(STEPS, 2)
    for accumulation in (1, 2, 3):
        expected = run_steps(small_model(CPU), CPU, steps, accumulation=accumulation)
        found = run_steps(small_model(setting.device), setting.device, steps, accumulation=accumulation)
        # Not the parameters: Adam divides by roots of tiny squares, and those that hardly matter move at random.
        name = f"losses of {steps} steps of {accumulation} batches in float32 against the CPU"
        yield bounded(name, error_of([found], [expected]), SAME)


def _half(setting: CheckSetting) -> Iterator[Check]:
    steps = setting.size(STEPS, 2)
    exact = run_steps(small_model(setting.device), setting.device, steps)
    for precision in ("bf16", "fp16"):
        found = run_steps(small_model(setting.device), setting.device, 1, precision)
        yield bounded(f"first loss in {precision} against float32", error_of([found[0]], [exact[0]]), ROUGH)
    found = run_steps(small_model(setting.device), setting.device, steps, "bf16")
    yield bounded(f"{steps} losses in bf16 against float32", error_of([found], [exact]), ROUGH)


def _overflow(setting: CheckSetting) -> Iterator[Check]:
    """An infinity skips the step and halves the scale; no parameter and no moment changes."""
    from mote_fast.data.loading.batch import Batch
    from mote_fast.training.build import build_optimizer
    from mote_fast.training.config.sections import OptimConfig
    from mote_fast.training.step import Arithmetic, Objective, draws_of_step, train_step

    model = small_model(setting.device)
    objective, optimizer = Objective(model, METHOD), build_optimizer(model, OptimConfig(lr=LR))
    arithmetic = Arithmetic("fp16", setting.device)
    (batch,) = small_batches(1, setting.device)
    poisoned = Batch(batch.pixels * float("inf"), batch.labels, batch.indices)
    draws = draws_of_step(model.head, METHOD, 1, seed=0, step=0, rank=0)
    # The scaler starts high: steps are skipped until it has come down.
    for _ in range(20):
        train_step(objective, optimizer, iter([batch]), draws, arithmetic)
    state = [each.detach().clone() for each in (*model.parameters(), *_moments(optimizer))]
    scale = arithmetic.scaler.get_scale()
    train_step(objective, optimizer, iter([poisoned]), draws, arithmetic)
    after = [*model.parameters(), *_moments(optimizer)]
    same = all(torch.equal(a, b) for a, b in zip(state, after, strict=True))
    yield holds("overflow changes no parameter and no moment", same)
    yield holds("overflow halves the scale", arithmetic.scaler.get_scale() == scale / 2, f"{scale:g}")


def _moments(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


def _golden(setting: CheckSetting) -> Iterator[Check]:
    """The official implementation's losses, logits and gradients, from the released head."""
    from safetensors.torch import load_file

    from mote_fast.model.released import head_from_released

    if not (GOLDEN / "golden.json").is_file():
        yield skipped("golden numbers", "tests/golden is not here")
        return
    golden = json.loads((GOLDEN / "golden.json").read_text())
    numbers = load_file(GOLDEN / "head.safetensors")
    inputs = [numbers[f"input.{name}"].to(setting.device) for name in ("video", "text", "labels")]
    released = {name.removeprefix("state."): each for name, each in numbers.items() if name.startswith("state.")}
    head = head_from_released(released, 2).to(setting.device)

    def loss_of(step: int) -> Tensor:
        trajectory = golden["trajectory"]
        temperatures = [float(golden["taus"][at]) for at in trajectory["tau_index"][step]]
        draws = Draws(trajectory["experts"][step], temperatures)
        return training_loss(head, inputs[0], inputs[1], inputs[2], 100.0, draws=draws).total

    with torch.no_grad():
        logits = head(inputs[0], numbers["input.classes"].to(setting.device), modulate=True)
    yield bounded("golden logits", error_of([logits.cpu()], [numbers["eval.logits"]]), SAME)
    optimizer = head_optimizer(head, lr=LR)
    losses = []
    for step in range(len(golden["trajectory"]["losses"])):
        optimizer.zero_grad()
        loss = loss_of(step)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().cpu())
    expected = torch.tensor(golden["trajectory"]["losses"])
    yield bounded("golden losses of ten steps", error_of([torch.stack(losses)], [expected]), SAME)


def _resumed(setting: CheckSetting) -> Check:
    """The head's optimiser saved and loaded in the middle; attention whose backward adds in a fixed order."""
    from device.training_case import DRY_HEADS, HeadCase

    def steps(case: HeadCase, optimizer: Any, draws: list[Draws]) -> None:
        for draw in draws:
            case.loss(draw.to(setting.device)).backward()
            optimizer.step()
            optimizer.zero_grad()

    with sdpa_kernel(SDPBackend.MATH):
        whole = HeadCase(*DRY_HEADS["small"], setting.device)
        draws = [whole.new_draws() for _ in range(5)]
        optimizer = head_optimizer(whole.head, lr=LR)
        steps(whole, optimizer, draws[:3])
        saved = copy.deepcopy((whole.head.state_dict(), optimizer.state_dict()))
        steps(whole, optimizer, draws[3:])
        again = HeadCase(*DRY_HEADS["small"], setting.device)
        other = head_optimizer(again.head, lr=LR)
        again.head.load_state_dict(saved[0])
        other.load_state_dict(saved[1])
        steps(again, other, draws[3:])
    pairs = zip(whole.head.parameters(), again.head.parameters(), strict=True)
    return holds("resumed bit for bit", all(torch.equal(a, b) for a, b in pairs))
