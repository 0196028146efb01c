"""``mote-fast train``: train on a list of videos.

``torchrun --nproc-per-node N -m mote_fast.cli train ...`` trains with several processes. The arguments of the official
script are accepted too. Exits with 0 if the run is complete, or has saved after SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

from mote_fast.cli import options, outputs
from mote_fast.cli.parsers.train_commands import add_train_arguments
from mote_fast.errors import ConfigError, MoteError
from mote_fast.runtime.json_text import to_json
from mote_fast.training.config import released_arguments
from mote_fast.training.config.train_config import load_config
from mote_fast.training.loop import train


def main(program: str) -> int:
    """Parse the command line of a program that only trains, train, and return the exit status."""
    parser = options.CommandParser(prog=program, description="Train MoTE on a list of videos.")
    add_train_arguments(parser)
    return run(options.parse(parser, None), program)


def run(arguments: argparse.Namespace, program: str | None = None) -> int:
    """Train. Returns 0, or 2 with one line on standard error if a setting, list or file is wrong."""
    overrides = arguments.settings
    if arguments.resume is not None:
        # JSON's quotes make YAML read a path as text.
        overrides = [*overrides, f"run.resume={to_json(arguments.resume)}"]
    rank = int(os.environ.get("RANK", "0"))
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING,
        format="%(asctime)s %(message)s" if rank == 0 else f"%(asctime)s rank {rank}: %(message)s",
        datefmt="%H:%M:%S",
        # The other commands log warnings alone, without times.
        force=program is None,
    )
    if rank != 0:
        logging.getLogger("mote_fast.training.config").setLevel(logging.ERROR)
    try:
        config = load_config(arguments.config, [*released_arguments.overrides_of(arguments), *overrides])
        config = released_arguments.with_log_time(config, arguments)
    except ConfigError as error:
        # Every process reads the same settings; only one reports the error.
        return _report(program, error) if rank == 0 else outputs.FAILED
    try:
        train(config)
    except MoteError as error:
        return _report(program, error)
    return 0


def _report(program: str | None, error: MoteError) -> int:
    if program is None:
        return outputs.report([str(error)])
    sys.stderr.write(f"{program}: {error}\n")
    return outputs.FAILED
