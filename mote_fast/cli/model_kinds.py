"""Which options apply to which kind of model: one that would do nothing with the given model is refused."""

from __future__ import annotations

import argparse
from typing import Literal

from mote_fast.clip.clip_config import is_architecture
from mote_fast.errors import ConfigError
from mote_fast.model.model_defaults import CLIP_SCHEMA, HUB_SCHEMA
from mote_fast.model.zoo import list_models
from mote_fast.runtime.reading import expanded

Kind = Literal["released", "folder", "clip", "architecture"]

# The options that say what a model is made of, beside its name.
OPTIONS = ("clip", "interpolate", "frames", "clip_pretrained", "header")

APPLY: dict[Kind, tuple[str, ...]] = {
    "released": ("clip", "interpolate", "frames"),
    "folder": ("clip", "interpolate", "frames"),
    "clip": ("frames",),
    "architecture": ("frames", "clip_pretrained", "header"),
}

_WHAT: dict[Kind, str] = {
    "released": "a trained model, which has its own",
    "folder": "a trained model, which has its own",
    "clip": "a CLIP with mean pooling, which its name describes",
    "architecture": "an architecture; --clip and --interpolate go with a trained model, --clip-pretrained with this",
}


def kind_of(arguments: argparse.Namespace) -> Kind:
    """Return the kind of the model that ``--checkpoint`` or ``--model`` names; whether it exists is not checked."""
    name = arguments.checkpoint or arguments.model
    if name.startswith(CLIP_SCHEMA):
        return "clip"
    if expanded(name).is_dir() and (arguments.checkpoint is not None or not is_architecture(name)):
        return "folder"
    if name.startswith(HUB_SCHEMA):
        # Of a repository, the header is that of a model, or is asked for with CLIP towers.
        return "folder" if arguments.checkpoint is not None or arguments.header is None else "architecture"
    if name in list_models():
        return "folder" if list_models()[name].url is None else "released"
    if arguments.checkpoint is not None or (not is_architecture(name) and expanded(name).exists()):
        return "released"
    return "architecture"


def check_options(arguments: argparse.Namespace) -> None:
    """Check that each given option has an effect on the given model.

    Raises:
        ConfigError: one has none.
    """
    given = {*getattr(arguments, "given", ())}
    if arguments.checkpoint is not None and "model" in given:
        raise ConfigError("--model does nothing beside --checkpoint, which names the model; leave one of them out")
    kind = kind_of(arguments)
    for name in OPTIONS:
        stated = name in given if name == "frames" else getattr(arguments, name) is not None
        if stated and name not in APPLY[kind]:
            option = f"--{name.replace('_', '-')}"
            named = arguments.checkpoint or arguments.model
            raise ConfigError(f"{option} does not apply to {named}, {_WHAT[kind]}")
    if "description_weight" in given and arguments.descriptions is None:
        raise ConfigError("--description-weight does nothing without --descriptions FILE")
