"""Which checkpoint a run continues; a finished run does not pass for another experiment."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mote_fast.errors import ConfigError
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.training.config.train_config import TrainConfig, to_dict
from mote_fast.training.state import (
    CHECKPOINT_FOLDER,
    DataPosition,
    TrainState,
    differences,
    find_checkpoint,
    read_checkpoint,
)

log = logging.getLogger(__name__)

# How far a run goes. A finished run continues if these alone differ, and it then has steps left.
_LENGTH = ("optim.epochs", "run.max_steps")

# Where the videos are and how fast the machine is, which do not decide what is learnt. Lists and class names are
# compared by their content.
_WITHOUT_EFFECT = (
    *(
        "data.train_list",
        "data.labels",
        "data.train_root",
        "data.val_root",
        "data.workers",
        "data.val_batch_size",
        "data.time_limit",
    ),
    *("data.decode", "data.backend", "optim.grad_checkpointing", "optim.compile", "run.device"),
)

# Differing settings that a message shows.
_SHOWN = 3


def resume(config: TrainConfig, world: ProcessGroup, state: TrainState, order: DataPosition) -> None:
    """Restore the checkpoint that ``run.resume`` selects, if there is one; the first process decides which.

    Raises:
        ConfigError: the checkpoint ends another run, or its steps would take other videos.
        CheckpointError: the checkpoint cannot be read, or is of another model.
    """
    output = Path(config.run.output)
    path = world.gather(find_checkpoint(config.run.resume, output) if world.leads else None)[0]
    if path is None:
        return
    content = read_checkpoint(path)
    check_unfinished(content, config, path)
    state.restore(content, config, order, world, path)
    if path.resolve().parent != (output / CHECKPOINT_FOLDER).resolve():
        # The metrics of that run are in its own folder.
        state.progress.metrics_bytes = 0
    if world.leads:
        log.info("resumed %s: epoch %d, step %d", path, state.progress.epoch + 1, state.progress.step)


def is_finished(progress: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a run has no step left.

    Args:
        progress: the fields of ``RunProgress``.
        settings: of the run, as ``to_dict`` returns them.
    """
    ends = (
        (progress["epoch"], settings.get("optim", {}).get("epochs")),
        (progress["step"], settings.get("run", {}).get("max_steps")),
    )
    return any(isinstance(end, int) and at >= end for at, end in ends)


def check_unfinished(content: Mapping[str, Any], config: TrainConfig, path: Path) -> None:
    """Check that a checkpoint is not the end of another run, of which no step would be left for this one.

    Args:
        content: the checkpoint.
        config: the settings of this run.
        path: path of the checkpoint.

    Raises:
        ConfigError: the checkpoint's run is finished, and its settings differ. More epochs or steps alone are allowed;
            with other settings beside them only if ``run.resume`` names the checkpoint.
    """
    before, now, progress = content["config"], to_dict(config), content["progress"]
    if not is_finished(progress, before):
        return
    changes = {change.partition(":")[0]: change for change in differences(before, now)}
    changed = [change for key, change in changes.items() if key not in _WITHOUT_EFFECT]
    steps_left = not is_finished(progress, now)
    longer = steps_left and (config.run.resume != "auto" or changes.keys() <= {*_LENGTH, *_WITHOUT_EFFECT})
    if not changed or longer:
        return
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    raise ConfigError(
        f"run.output {config.run.output}: {path} ends a finished run of {progress['step']} steps with other settings "
        f"({', '.join(changed[:_SHOWN])}{more}); give another run.output, or, to train that model further, more "
        f"optim.epochs with run.resume={path}"
    )
