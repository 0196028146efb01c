"""Arguments of the commands about training: train and configs."""

from __future__ import annotations

import argparse
from typing import Any

from mote_fast.cli import options
from mote_fast.training.config import released_arguments


def add_commands(commands: Any) -> None:
    """Register the commands."""
    described = """Train on a list of videos. "torchrun --nproc-per-node N -m mote_fast.cli train ..." trains with
    several processes. The arguments of the official script are accepted too. Exits with 0 if the run is complete, or
    has saved after SIGTERM or SIGINT."""
    parser = commands.add_parser("train", help="train on a list of videos", description=described)
    add_train_arguments(parser)
    options.set_run(parser, "train")

    described = "List the configurations that come with the package, or print one of them."
    parser = commands.add_parser("configs", help="configurations for training, by name", description=described)
    purpose = 'print this one; "base" of another file may name it'
    parser.add_argument("name", nargs="?", metavar="NAME", help=purpose)
    options.add_json(parser)
    options.set_run(parser, "configs")


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of train; ``options.parse`` lets settings stand before and after options."""
    options.add_config(parser)
    parser.add_argument("--resume", metavar="auto|none|FILE", help="the same as run.resume=...")
    released_arguments.add_arguments(parser)
