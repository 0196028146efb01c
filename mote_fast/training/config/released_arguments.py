"""The command-line arguments of the official training script, for ``train.py``."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from mote_fast.errors import ConfigError

if TYPE_CHECKING:
    from mote_fast.training.config.train_config import TrainConfig

log = logging.getLogger(__name__)

# Read by the official script from its launcher; here torchrun's environment says it.
_WITHOUT_EFFECT = ("dist_url", "world_size", "local_rank")

# Our precision of each of theirs.
_PRECISIONS = {"amp": "fp16", "fp32": "fp32"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that only the official script has."""
    group = parser.add_argument_group("arguments of the official script")
    group.add_argument("--log_time", metavar="NAME", help="sub-folder of run.output for this run")
    group.add_argument(
        "--precision", choices=("amp", "fp16", "fp32"), help="amp is optim.precision=fp16; fp16 is not available"
    )
    for name in _WITHOUT_EFFECT:
        # torch.distributed.launch writes --local-rank in newer versions.
        group.add_argument(f"--{name}", f"--{name.replace('_', '-')}", metavar="X", help="without effect")


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """Return the arguments as ``key=value`` settings; one warning names those without effect.

    Raises:
        ConfigError: a precision that has no counterpart here.
    """
    unused = [f"--{name}" for name in _WITHOUT_EFFECT if getattr(arguments, name) is not None]
    if unused:
        log.warning("these arguments have no effect, torchrun says what they said: %s", ", ".join(unused))
    if arguments.precision is None:
        return []
    if arguments.precision not in _PRECISIONS:
        raise ConfigError(
            f"--precision {arguments.precision}: the official script then trains weights in half precision without a "
            "loss scaler, which is not available here; use amp (the official default) or fp32"
        )
    return [f"optim.precision={_PRECISIONS[arguments.precision]}"]


def with_log_time(config: TrainConfig, arguments: argparse.Namespace) -> TrainConfig:
    """Return the configuration with the output folder that ``--log_time`` selects."""
    if arguments.log_time is None:
        return config
    return replace(config, run=replace(config.run, output=str(PurePath(config.run.output, arguments.log_time))))
