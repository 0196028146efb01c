"""The training loop: epochs of steps, saved and stopped between steps, validated between epochs."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mote_fast.data.items import read_labels
from mote_fast.errors import ConfigError, MoteError
from mote_fast.evaluation.predict import as_they_are, predict
from mote_fast.runtime.distributed import ProcessGroup, joined
from mote_fast.runtime.files import make_folder, write_text
from mote_fast.runtime.lock import FileLock
from mote_fast.runtime.parts import remove_abandoned
from mote_fast.runtime.weights import check_model_folder
from mote_fast.training.banner import first_lines
from mote_fast.training.build import Loaders, build_loaders, build_model, build_optimizer, store_class_features
from mote_fast.training.compile_kernels import compile_kernels
from mote_fast.training.config.sections import AUTOCAST_DTYPES
from mote_fast.training.config.train_config import TrainConfig, to_dict, to_yaml
from mote_fast.training.cost import cost_of_run
from mote_fast.training.fault_report import FAULTS_FILE, report_faults
from mote_fast.training.logs import METRICS_FILE, RunLog, ThroughputMeter, duration, peak_memory
from mote_fast.training.one_library import agree
from mote_fast.training.resuming import is_finished, resume
from mote_fast.training.schedule import learning_rate, refreshed_epoch, set_learning_rate
from mote_fast.training.small_data import cautions
from mote_fast.training.state import CHECKPOINT_FOLDER, DataPosition, RunProgress, TrainState, save_checkpoint
from mote_fast.training.step import (
    LOSSES,
    Arithmetic,
    Objective,
    StepResult,
    distribute,
    draws_of_step,
    train_step,
)
from mote_fast.training.step_profile import StepProfile
from mote_fast.training.stopping import StoppableLoader, Stopped, StopRequest
from mote_fast.training.validation import measure

log = logging.getLogger(__name__)

# Model folders inside run.output, for ``mote_fast.load``: the final model, and the one with the best validation.
FINAL_MODEL = "model"
BEST_MODEL = "best"
CONFIG_FILE = "config.yaml"
LOCK_FILE = "run.lock"


@dataclass(frozen=True)
class Run:
    """The parts of a run.

    Attributes:
        objective: the result of ``distribute``.
        steps_per_epoch: optimiser steps.
        steps: optimiser steps of the whole run.
    """

    config: TrainConfig
    world: ProcessGroup
    loaders: Loaders
    state: TrainState
    order: DataPosition
    objective: nn.Module
    arithmetic: Arithmetic
    steps_per_epoch: int
    steps: int
    log: RunLog
    pace: ThroughputMeter
    stop: StopRequest
    profile: StepProfile


def train(config: TrainConfig) -> bool:
    """Train as configured; under torchrun, together with the other processes of the run.

    Returns:
        True if the run is complete, False if it was asked to stop (SIGTERM, SIGINT), has saved, and can be resumed.

    Raises:
        MoteError: a setting, list, file or checkpoint is wrong, another run writes to the folder, or the loss or a
            weight is no longer a number.
    """
    with joined(config.run.device) as world, _output_of(config, world):
        if config.optim.precision == "fp16" and world.device.type == "cpu":
            raise ConfigError("optim.precision 'fp16' needs a GPU, and run.device found none; use 'bf16' or 'fp32'")
        torch.manual_seed(config.run.seed)
        agree(world)
        names = read_labels(config.data.labels)
        model = build_model(config.model, config.data, world)
        loaders = build_loaders(config, model, names, world)
        try:
            store_class_features(model, names, world)
            arithmetic = Arithmetic(config.optim.precision, world.device)
            state = TrainState(model, build_optimizer(model, config.optim), arithmetic.scaler, RunProgress())
            clips = config.data.batch_size * world.size * config.optim.accumulation
            order = DataPosition(
                loaders.training_videos, clips, names, loaders.training_streams, loaders.training_content
            )
            if world.leads:
                for line in first_lines(config, world, model, loaders):
                    log.info(line)
                for line in cautions(config, loaders):
                    log.warning(line)
            resume(config, world, state, order)
            return _train(config, world, loaders, state, order, arithmetic)
        finally:
            loaders.close()


@contextmanager
def _output_of(config: TrainConfig, world: ProcessGroup) -> Iterator[None]:
    """Make the folder of the run, and lock it to other runs; the first process does."""
    if not world.leads:
        yield
        return
    output = Path(config.run.output)
    make_folder(output, "run.output", (CONFIG_FILE, METRICS_FILE, FAULTS_FILE))
    with FileLock(output / LOCK_FILE, f"run.output {output}"):
        for name in (FINAL_MODEL, BEST_MODEL):
            check_model_folder(output / name)
            remove_abandoned(output, name)
        yield


def _train(
    config: TrainConfig,
    world: ProcessGroup,
    loaders: Loaders,
    state: TrainState,
    order: DataPosition,
    arithmetic: Arithmetic,
) -> bool:
    """Run the remaining epochs, from a new or restored state; see ``train``."""
    optim, output, progress = config.optim, Path(config.run.output), state.progress
    steps_per_epoch = math.ceil(loaders.training.batches_per_epoch / optim.accumulation)
    steps = steps_per_epoch * optim.epochs
    if config.run.max_steps is not None:
        steps = min(steps, config.run.max_steps)
    if not optim.compile:
        # Validation runs the image tower too.
        state.model.clip.compiler.choose(False)
    objective = Objective(
        state.model,
        config.method,
        train_clip=config.model.train_clip,
        grad_checkpointing=optim.grad_checkpointing,
        compile=optim.compile,
        cached=config.data.features is not None,
    )
    clips = config.data.batch_size * config.data.frames
    dtype = AUTOCAST_DTYPES[optim.precision] or torch.float32
    compile_kernels(state.model.head, config.method, clips, dtype, optim.accumulation)
    if world.leads:
        write_text(output / CONFIG_FILE, to_yaml(config))
        if (cost := cost_of_run(config, state.model, loaders, progress, steps, arithmetic, world.size)) is not None:
            log.warning(cost)
    with (
        RunLog(
            output,
            leads=world.leads,
            step=progress.step,
            steps=steps,
            kept=progress.metrics_bytes,
            tensorboard=config.run.tensorboard,
        ) as run_log,
        StopRequest() as stop,
        StepProfile(output, config.run.profile_steps if world.leads else 0, world.device) as profile,
    ):
        distributed = distribute(objective, state.optimizer, world)
        run = Run(
            config,
            world,
            loaders,
            state,
            order,
            distributed,
            arithmetic,
            steps_per_epoch,
            steps,
            run_log,
            ThroughputMeter(world.device.type == "cuda"),
            stop,
            profile,
        )
        finished_before = is_finished(asdict(progress), to_dict(config))
        try:
            while progress.epoch < optim.epochs:
                _take_steps(run)
                if progress.step_in_epoch < steps_per_epoch:
                    # run.max_steps ends the run before the epoch's end.
                    _save(run)
                    break
                _end_epoch(run)
        except Stopped:
            return False
        if world.leads:
            state.model.save(output / FINAL_MODEL)
            outcome = "finished before, nothing was left to train" if finished_before else "done"
            log.info("%s: %d steps; model in %s", outcome, progress.step, output / FINAL_MODEL)
        world.wait()
    return True


def _take_steps(run: Run) -> None:
    """Take the remaining steps of the epoch.

    Raises:
        Stopped: a process was asked to stop; the last whole step is saved.
    """
    config, progress = run.config, run.state.progress
    accumulation = config.optim.accumulation
    epoch, batches_per_epoch = progress.epoch, run.loaders.training.batches_per_epoch
    waiting = run.stop.until_asked(run.loaders.training.epoch(epoch, progress.step_in_epoch * accumulation))
    batches = run.pace.timed(waiting)
    saved = True
    try:
        while progress.step_in_epoch < run.steps_per_epoch and progress.step < run.steps:
            first = progress.step_in_epoch * accumulation
            # The last step of an epoch takes the remaining batches.
            count = min(accumulation, batches_per_epoch - first)
            lr = learning_rate(refreshed_epoch(epoch, first + count - 1, batches_per_epoch), config.optim)
            set_learning_rate(run.state.optimizer, lr, config.optim.clip_ratio)
            draws = draws_of_step(
                run.state.model.head,
                config.method,
                count,
                seed=config.run.seed,
                step=progress.step,
                rank=None if config.run.sync_routing else run.world.rank,
            )
            result = train_step(
                run.objective,
                run.state.optimizer,
                run.loaders.with_targets(run.stop.batches_of_step(batches, count, run.world), len(run.order.classes)),
                draws,
                run.arithmetic,
                clip_gradient=config.optim.clip_gradient,
                world_size=run.world.size,
                sync_routing=config.run.sync_routing,
            )
            progress.next_step()
            run.profile.step()
            saved = False
            run.pace.count(count * config.data.batch_size * run.world.size)
            run.log.advance()
            log_due = progress.step % config.run.log_every == 0 or progress.step == run.steps
            save_due = bool(config.run.save_every and progress.step % config.run.save_every == 0)
            # The end of an epoch saves too: never save weights whose loss was not checked.
            if log_due or save_due or progress.step_in_epoch == run.steps_per_epoch:
                losses = _finite_losses(run, result)
                if log_due:
                    _log_step(run, losses, result.gradient_norm, lr)
                if save_due:
                    _save(run)
                    saved = True
        run.stop.agree(run.world)
    except Stopped:
        # Of the batches of a step that is given up.
        run.state.optimizer.zero_grad()
        if not saved:
            _save(run)
        raise


def _end_epoch(run: Run) -> None:
    """Validate if it is due, report, save.

    Raises:
        Stopped: a process was asked to stop during the validation, which a resumed run repeats.
    """
    progress, every = run.state.progress, run.config.run.eval_every
    last = progress.epoch + 1 == run.config.optim.epochs
    if run.loaders.validation is not None and every and (last or (progress.epoch + 1) % every == 0):
        # Validation may take long, and be stopped or killed: save the epoch before it.
        _save(run)
        _validate(run)
    report_faults(run.loaders, run.world, run.log, Path(run.config.run.output), progress)
    progress.next_epoch()
    _save(run)
    run.pace.restart()


def _validate(run: Run) -> None:
    """Run the model with merged experts over the validation list; save the model if it is the best so far."""
    state, progress = run.state, run.state.progress
    assert run.loaders.validation is not None
    loader = StoppableLoader(run.loaders.validation, run.stop, run.world)
    classes = state.model.head.train_class_features
    assert classes is not None
    with tqdm(
        total=math.ceil(run.loaders.validation_videos / run.world.size),
        desc="validation",
        unit="video",
        leave=False,
        disable=None if run.world.leads else True,
    ) as bar:
        given = as_they_are if run.config.data.features is not None else None
        predictions = predict(state.model, loader, classes, progress=bar.update, encode=given)
    found = measure(predictions, run.loaders.validation_items)
    decisive = next(iter(found.percentages.values()))
    # Of equal ones the later: on few videos many are equal, and the first of them has learnt least.
    best = progress.best_accuracy is None or decisive >= progress.best_accuracy
    if best and not math.isnan(decisive):
        progress.best_accuracy, progress.best_epoch = decisive, progress.epoch
        if run.world.leads:
            state.model.save(Path(run.config.run.output) / BEST_MODEL)
    values = {
        "epoch": progress.epoch + 1,
        **found.percentages,
        "videos": found.videos,
        "failed": found.failed,
    }
    line = f"validation after epoch {progress.epoch + 1}: {found.line()}"
    if progress.best_accuracy is not None and progress.best_epoch is not None:
        line += f"; best {progress.best_accuracy:.2f}% after epoch {progress.best_epoch + 1}"
    run.log.record("val", progress.step, values, line)


def _log_step(run: Run, losses: list[float], gradient_norm: Tensor | None, lr: float) -> None:
    """Log the losses, learning rate and speed of the last step."""
    progress, pace, optim = run.state.progress, run.pace, run.config.optim
    values: dict[str, Any] = {"epoch": progress.epoch + progress.step_in_epoch / run.steps_per_epoch}
    values |= dict(zip(LOSSES, losses, strict=True))
    values |= {"lr": lr, "clip_lr": lr * optim.clip_ratio}
    if gradient_norm is not None:
        values["gradient_norm"] = gradient_norm.item()
    if run.arithmetic.scaler.is_enabled():
        values["loss_scale"] = run.arithmetic.scaler.get_scale()
    memory = peak_memory(run.world.device)
    left = (run.steps - progress.step) * run.order.clips_per_step / pace.clips_per_second
    values |= {"clips_per_second": pace.clips_per_second, "data_wait": pace.waited, "memory": memory}
    waits = f"data wait {pace.waited:.0%}"
    if pace.gpu_waited is not None:
        values["gpu_wait"] = pace.gpu_waited
        waits += f", GPU wait {pace.gpu_waited:.0%}"
    total, *parts = losses
    named = ", ".join(f"{name} {value:.4f}" for name, value in zip(LOSSES[1:], parts, strict=True))
    line = " | ".join(
        (
            f"step {progress.step}/{run.steps} epoch {values['epoch']:.2f}",
            f"loss {total:.4f} ({named})",
            f"lr {lr:.2e} clip {values['clip_lr']:.2e}",
            f"{pace.clips_per_second:.1f} clips/s, {waits}",
            f"{memory / 2**30:.1f} GiB",
            f"ETA {duration(left)}",
        )
    )
    run.log.record("train", progress.step, values, line)
    pace.restart()


def _finite_losses(run: Run, result: StepResult) -> list[float]:
    """Return the losses of a step, means over the processes.

    Raises:
        MoteError: a loss or the gradient's norm is NaN or infinite, and no loss scaler has skipped the step: the
            weights are lost.
    """
    losses = run.world.mean(result.losses).tolist()
    named = {"the loss": losses}
    if result.gradient_norm is not None:
        named["the norm of the gradient"] = [result.gradient_norm.item()]
    lost = [f"{name} is {values[0]}" for name, values in named.items() if not all(map(math.isfinite, values))]
    if lost and not run.arithmetic.scaler.is_enabled():
        raise MoteError(_diverged(run, f"{lost[0]} at"))
    return losses


def _diverged(run: Run, what: str) -> str:
    return (
        f"{what} step {run.state.progress.step}; lower optim.lr or set optim.clip_gradient, and resume: "
        f"the checkpoints in {run.config.run.output} are from before"
    )


def _save(run: Run) -> None:
    """Write a checkpoint; every process must call it.

    Raises:
        MoteError: a weight is NaN or infinite, which a step of finite loss can leave; nothing is written.
    """
    if (lost := run.state.lost_numbers()) is not None:
        raise MoteError(_diverged(run, f"{lost} holds NaN or infinity after"))
    run.state.progress.metrics_bytes = run.log.flushed()
    content = run.state.snapshot(run.config, run.order, run.world)
    if run.world.leads:
        save_checkpoint(Path(run.config.run.output) / CHECKPOINT_FOLDER, content, run.config.run.keep_last)
