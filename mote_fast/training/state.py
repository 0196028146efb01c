"""Checkpoints of a run: written atomically, and complete enough to continue bit for bit."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mote_fast.clip.clip_weights import fit_state_dict
from mote_fast.errors import CheckpointError, ConfigError, one_line, quoted
from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.runtime.files import staged
from mote_fast.runtime.parts import remove_abandoned
from mote_fast.runtime.weights import is_finite, read_weights, save_pickled
from mote_fast.training.config.train_config import TrainConfig, to_dict
from mote_fast.training.one_library import LIBRARIES, agree, library_in_use
from mote_fast.training.optim import HeadAdamW

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
CHECKPOINT_FOLDER = "checkpoints"
# The options of section run that affect training; the others say where and when a run writes.
_RUN_SETTINGS = ("seed", "device", "sync_routing", "max_steps")

_NAME = re.compile(r"step-(\d+)\.pt")


@dataclass
class RunProgress:
    """The progress of a run.

    Attributes:
        epoch: current epoch, counted from 0; the number of epochs once all are done.
        step_in_epoch: optimiser steps taken in the epoch; all of them while its validation is pending.
        step: optimiser steps taken in total.
        best_accuracy: best top-1, or mAP, of a validation so far, percent; None before the first.
        best_epoch: the epoch of the best accuracy.
        metrics_bytes: length of the metrics file.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_accuracy: float | None = None
    best_epoch: int | None = None
    metrics_bytes: int = 0

    def next_step(self) -> None:
        """Count a step."""
        self.step += 1
        self.step_in_epoch += 1

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch += 1
        self.step_in_epoch = 0


@dataclass(frozen=True)
class DataPosition:
    """The values that decide which videos a step takes and what their labels mean; fixed over a whole run.

    Attributes:
        videos: length of the training list.
        clips_per_step: clips over all processes and accumulated batches.
        classes: class names.
        streams: streams of tar shards, one for each worker of each process; 0 for a list of files.
        content: digest of the training list: paths below the root, labels, order. Empty in checkpoints of releases that
            did not record it.
    """

    videos: int
    clips_per_step: int
    classes: list[str]
    streams: int = 0
    content: str = ""


@dataclass(frozen=True)
class TrainState:
    """The state that training changes."""

    model: VideoClassifier
    optimizer: HeadAdamW
    scaler: torch.amp.GradScaler
    progress: RunProgress

    def snapshot(self, config: TrainConfig, order: DataPosition, world: ProcessGroup) -> dict[str, Any]:
        """Return the state as tensors and plain values; every process must call it."""
        return {
            "format_version": FORMAT_VERSION,
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": world.gather(_random_state(world.device)),
            "products": library_in_use(world.device),
            "order": asdict(order),
            "config": to_dict(config),
        }

    def lost_numbers(self) -> str | None:
        """Name a weight that is NaN or infinite, or whose moments are, as a diverging step leaves it; None if none."""
        for name, weight in self.model.named_parameters():
            values = {"": weight.detach(), **self.optimizer.state.get(weight, {})}
            for kind, value in values.items():
                if isinstance(value, Tensor) and not is_finite(value):
                    return f"{kind} of {name}" if kind else name
        return None

    def restore(
        self, content: Mapping[str, Any], config: TrainConfig, order: DataPosition, world: ProcessGroup, path: Path
    ) -> None:
        """Restore a ``snapshot``. The settings are those of ``config``; differences are logged.

        Raises:
            CheckpointError: the checkpoint belongs to another model.
            ConfigError: a step would take other videos than in the uninterrupted run.
        """
        before = DataPosition(**content["order"])
        if before.classes != order.classes:
            raise ConfigError(f"{path}: written with other class names; keep data.labels, or give another run.output")
        if before.streams != order.streams:
            raise ConfigError(
                f"{path}: written with the training shards read in {before.streams} streams, now they are "
                f"{order.streams}; keep the number of processes and data.workers, or give another run.output"
            )
        if (before.videos, before.clips_per_step) != (order.videos, order.clips_per_step):
            raise ConfigError(
                f"{path}: written with {before.videos} training videos and {before.clips_per_step} clips a step, now "
                f"there are {order.videos} and {order.clips_per_step}; keep data.train_list and the product of "
                "data.batch_size, optim.accumulation and processes, or give another run.output"
            )
        if before.content not in ("", order.content):
            raise ConfigError(
                f"{path}: written with other paths, labels or another order in the training list; a step would take "
                "other videos; restore data.train_list, or give another run.output"
            )
        fit_state_dict(self.model, content["model"], path)
        groups = [
            {name: value for name, value in group.items() if name not in ("params", "lr")}
            for group in self.optimizer.param_groups
        ]
        try:
            self.optimizer.load_state_dict(content["optimizer"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: its optimiser trained other parameters ({one_line(error)})") from error
        for weight, moments in self.optimizer.state.items():
            if any(moment.numel() not in (1, weight.numel()) for moment in moments.values()):
                raise CheckpointError(f"{path}: its optimiser trained other parameters (their shapes differ)")
        for group, settings in zip(self.optimizer.param_groups, groups, strict=True):
            group.update(settings)
        # A disabled scaler has no state, and the precision may have changed.
        if content["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(content["scaler"])
        if world.leads:
            for change in differences(content["config"], to_dict(config)):
                log.warning("resumed with another setting: %s", change)
            if len(content["random"]) != world.size:
                log.warning(
                    "resumed with another number of processes: %d -> %d; the steps take the same videos, with other "
                    "experts and temperatures",
                    len(content["random"]),
                    world.size,
                )
        agree(world, content.get("products"))
        vars(self.progress).update(content["progress"])
        if world.rank < len(content["random"]):
            try:
                _set_random_state(content["random"][world.rank], world.device)
            except (LookupError, TypeError, RuntimeError) as error:
                raise CheckpointError(f"{path}: its random state cannot be set ({one_line(error)})") from error


def save_checkpoint(folder: Path, content: Mapping[str, Any], keep_last: int) -> Path:
    """Write a snapshot to ``folder``, then delete all but the newest ``keep_last`` up to it; return its path.

    The file is first flushed to disk under another name, so that there is a complete checkpoint at any time.

    Raises:
        CheckpointError: it cannot be written.
    """
    step = content["progress"]["step"]
    path = folder / f"step-{step:08d}.pt"
    try:
        with staged(path, CheckpointError) as part:
            save_pickled(content, part)
        # Later checkpoints are kept: a damaged, skipped checkpoint must not count towards keep_last.
        for old in [known for at, known in list_checkpoints(folder) if at <= step][:-keep_last]:
            old.unlink()
        remove_abandoned(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: earlier checkpoints cannot be removed ({error})") from error
    return path


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints of a folder and their steps, oldest first, including incomplete ones."""
    found = [(match, path) for path in folder.glob("step-*.pt") if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match[1]), path) for match, path in found)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of ``save_checkpoint`` onto the CPU; only tensors and plain values are unpickled.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint of a run, or of one that had diverged.
    """
    content = read_weights(path)
    if content.get("format_version") != FORMAT_VERSION or "progress" not in content:
        raise CheckpointError(
            f"{path}: no checkpoint of a training run that this release reads; to fine-tune a model, use "
            "model.checkpoint"
        )
    try:
        _check_layout(content)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not laid out as a checkpoint of a run ({one_line(error)})") from error
    _check_numbers(content, path)
    return content


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a folder, None if it holds none; damaged ones are named in a warning.

    Raises:
        CheckpointError: all are damaged. A run that started from scratch would overwrite what the folder holds.
    """
    known = list_checkpoints(folder)
    for _, path in reversed(known):
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            log.warning("passed over: %s", str(error))
        else:
            return path
    if known:
        raise CheckpointError(
            f"{folder}: not one of its checkpoints can be read ({known[-1][1].name} is the newest); move the folder "
            "away to start from scratch"
        )
    return None


def find_checkpoint(resume: str, output: Path) -> Path | None:
    """Return the checkpoint that ``run.resume`` selects, or None to start from scratch.

    Raises:
        ConfigError: continuing from that checkpoint would mix two runs in one folder.
        CheckpointError: the named file, or every checkpoint of the folder, cannot be read.
    """
    folder = output / CHECKPOINT_FOLDER
    if resume == "auto":
        return newest_checkpoint(folder)
    known = list_checkpoints(folder)
    if resume == "none":
        if known:
            raise ConfigError(f"run.resume=none, but {folder} holds checkpoints; choose another run.output")
        return None
    path = Path(resume)
    step = read_checkpoint(path)["progress"]["step"]
    if known and known[-1][0] > step:
        raise ConfigError(
            f"run.resume={path} is older than {known[-1][1]}; choose another run.output, or move the later ones away"
        )
    return path


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the settings that differ between two configurations, as ``section.key: before -> now``."""
    return [
        f"{section}.{key}: {quoted(before[section].get(key))} -> {quoted(value)}"
        for section, values in now.items()
        if section in before
        for key, value in values.items()
        if (section != "run" or key in _RUN_SETTINGS) and before[section].get(key) != value
    ]


def _check_layout(content: Mapping[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError unless the parts of a checkpoint have the types of a snapshot's."""
    for part in ("progress", "model", "optimizer", "scaler", "order", "config"):
        if not isinstance(content[part], dict):
            raise TypeError(f"{part} is {quoted(content[part])}")
    progress, order = RunProgress(**content["progress"]), DataPosition(**content["order"])
    for count in (progress.epoch, progress.step_in_epoch, progress.step, progress.metrics_bytes, order.videos):
        if type(count) is not int or count < 0:
            raise TypeError(f"a count is {quoted(count)}")
    if not isinstance(progress.best_accuracy, float | int | None) or not isinstance(content["random"], list):
        raise TypeError("its best accuracy or its random state has another type")
    if content.get("products") not in (None, *LIBRARIES):
        raise ValueError(f"its products are {quoted(content['products'])}")
    states = [*content["optimizer"]["state"].values(), content["model"]]
    if not all(isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values()) for state in states):
        raise TypeError("something else stands in the place of tensors")
    if not all(isinstance(section, dict) for section in content["config"].values()):
        raise TypeError("a section of its configuration is none")


def _check_numbers(content: Mapping[str, Any], path: Path) -> None:
    """Refuse what earlier releases saved after a step had diverged. Masks of a text tower may be infinite."""
    moments = content.get("optimizer", {}).get("state", {})
    lost = [f"{kind} of the optimiser" for state in moments.values() for kind, v in state.items() if not is_finite(v)]
    lost += [name for name, value in content.get("model", {}).items() if not is_finite(value) and value.isnan().any()]
    if lost:
        raise CheckpointError(
            f"{path}: {lost[0]} holds NaN or infinity, as training leaves it when it diverges; use an earlier "
            "checkpoint"
        )


def _random_state(device: torch.device) -> dict[str, Any]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
