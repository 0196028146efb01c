"""``mote-fast convert``: converts released .pt files to model folders, and back."""

from __future__ import annotations

import argparse
from pathlib import Path

from mote_fast.cli import outputs
from mote_fast.errors import CheckpointError, ConfigError
from mote_fast.model.checkpoint import load, released_checkpoint
from mote_fast.runtime.files import check_file, staged
from mote_fast.runtime.text import visible
from mote_fast.runtime.weights import check_model_folder, save_pickled


def run(arguments: argparse.Namespace) -> int:
    """Convert a file to a folder or a folder to a file, depending on the source. Returns 0."""
    source, target = Path(arguments.source), Path(arguments.target)
    if source.is_dir():
        if "frames" in getattr(arguments, "given", ()):
            raise ConfigError(f"--frames does not apply to {source}: a released file does not record it")
        if target.suffix not in (".pt", ".pth"):
            raise CheckpointError(f"{target}: a model folder converts to a .pt file; give a name that ends in .pt")
        if not target.parent.is_dir():
            raise CheckpointError(f"{target}: its folder does not exist; make it, or give another name")
        check_file(target, "TARGET")
        # Without a request the tuned tower is kept, whatever share its training asks for at evaluation.
        share = 1.0 if arguments.clip is None and arguments.interpolate is None else arguments.interpolate
        content = released_checkpoint(load(source, clip=arguments.clip, interpolate=share))
        with staged(target, CheckpointError) as part:
            save_pickled(content, part)
    else:
        check_model_folder(target)
        model = load(source, clip=arguments.clip, interpolate=arguments.interpolate, frames=arguments.frames)
        model.save(target)
    outputs.write(visible(f"{source} -> {target}"))
    return 0
