"""``mote-fast models``: lists the models that have a name."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from mote_fast.cli import outputs
from mote_fast.errors import CheckpointError
from mote_fast.model.model_defaults import CLIP_SCHEMA
from mote_fast.model.zoo import PublishedModel, list_models


def run(arguments: argparse.Namespace) -> int:
    """Print each model, what is published about it, and whether its weights are on this machine. Returns 0."""
    models = list(list_models().values())
    listed = [{**asdict(model), "path": _present(model)} for model in models]
    lines: list[str] = []
    for model, row in zip(models, listed, strict=True):
        lines += [f"{model.name:14} {model.summary}"]
        if model.figures:
            lines += ["  published: " + ", ".join(f"{name} {value:.1f} %" for name, value in model.figures.items())]
        lines += [f"  licence: {model.license}"]
        if model.url is not None:
            size = "size unknown until fetched" if model.size is None else f"{model.size / 1e6:.1f} MB"
            lines += [f"  {row['path'] or f'{model.url} ({size})'}"]
    lines += [f"{CLIP_SCHEMA}ARCHITECTURE/TAG", "  CLIP of open_clip with mean pooling, such as clip:ViT-B-16/openai"]
    outputs.show(arguments, {"models": listed}, lines)
    return 0


def _present(model: PublishedModel) -> str | None:
    """The path of a model's weights if they are on this machine."""
    try:
        return str(model.path) if model.path.exists() else None
    except CheckpointError:
        return None
