"""``eval --config``: the lists, class names and reading options of configuration files, such as the official ones."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mote_fast.errors import ConfigError
from mote_fast.training.config.train_config import stated_options

# The option of ``eval`` for each of a file's. The checkpoint says what the model is.
_OPTIONS = {
    "data.templates": "templates",
    "data.descriptions": "descriptions",
    "data.description_weight": "description_weight",
    "data.frames": "frames",
    "data.batch_size": "batch_size",
    "data.workers": "workers",
    "data.frame_template": "frame_template",
    "data.pixel_aspect": "pixel_aspect",
    "data.crops_along": "crops_along",
    "data.decode": "decode",
    "data.backend": "loader",
}


def apply_configs(arguments: argparse.Namespace) -> None:
    """Set the options that the files of ``--config`` state; options of the command line come first.

    Raises:
        ConfigError: there is neither list nor file, or there are both; a file cannot be read or lacks its list; files
            disagree; a folder does not exist.
    """
    if (arguments.config is None) == (arguments.list is None):
        raise ConfigError("give the videos with either --list or --config")
    if arguments.config is None:
        return
    stated = {path: stated_options(path) for path in arguments.config}
    arguments.list = [_required(stated, path, "data.val_list") for path in stated]
    if arguments.labels_file is None:
        arguments.labels_file = [_required(stated, path, "data.labels") for path in stated]
    root = _common(stated, "data.val_root")
    if not arguments.root and root:
        if not Path(root).is_dir():
            raise ConfigError(f"{arguments.config[0]}: data.val_root names {root!r}, which is no folder; give --root")
        arguments.root = root
    for key, name in _OPTIONS.items():
        value = _common(stated, key)
        if value is not None and name not in arguments.given:
            setattr(arguments, name, value)
    # A file or folder has a tuned image tower; what goes by a name says how it is read.
    if arguments.interpolate is None and arguments.checkpoint is not None and Path(arguments.checkpoint).exists():
        arguments.interpolate = _common(stated, "model.interpolate")
    arguments.dense = arguments.dense or bool(_common(stated, "data.dense"))


def _required(stated: Mapping[str, Mapping[str, Any]], path: str, key: str) -> str:
    value = stated[path].get(key)
    if not value:
        raise ConfigError(f"{path}: {key} is missing, so there is nothing to evaluate")
    return value


def _common(stated: Mapping[str, Mapping[str, Any]], key: str) -> Any:
    """Return the value on which the files agree, None if none of them states it."""
    values = {path: options.get(key) for path, options in stated.items()}
    if len(set(values.values())) > 1:
        described = ", ".join(f"{value!r} in {path}" for path, value in values.items())
        raise ConfigError(f"files that are evaluated together must agree on {key}: {described}")
    return next(iter(values.values()))
