"""Train MoTE: ``torchrun [--nproc-per-node N] train.py --config FILE [key=value ...]``, or with ``python`` alone.

The arguments of the official script are accepted too.

Exits with 0 if the run is complete, or has saved after SIGTERM or SIGINT; with 2 and one line if a setting, list or
file is wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys

from mote_fast.errors import ConfigError, MoteError
from mote_fast.training.config import released_arguments
from mote_fast.training.config.train_config import load_config
from mote_fast.training.loop import train


def main() -> int:
    """Parse the command line, train, and return the exit code."""
    parser = argparse.ArgumentParser(description="Train MoTE on a list of videos.", allow_abbrev=False)
    parser.add_argument(
        "--config", "-cfg", required=True, metavar="FILE", help="YAML, of this project or of the official code"
    )
    parser.add_argument("--resume", metavar="auto|none|FILE", help="the same as run.resume=...")
    released_arguments.add_arguments(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that override the file's")
    # Settings may come before and after an option.
    arguments = parser.parse_intermixed_args()
    overrides = arguments.overrides
    if arguments.resume is not None:
        # JSON's quotes make YAML read a path as text.
        overrides = [*overrides, f"run.resume={json.dumps(arguments.resume)}"]
    rank = int(os.environ.get("RANK", "0"))
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING,
        format="%(asctime)s %(message)s" if rank == 0 else f"%(asctime)s rank {rank}: %(message)s",
        datefmt="%H:%M:%S",
    )
    if rank != 0:
        logging.getLogger("mote_fast.training.config").setLevel(logging.ERROR)
    try:
        config = load_config(arguments.config, [*released_arguments.overrides_of(arguments), *overrides])
        config = released_arguments.with_log_time(config, arguments)
    except ConfigError as error:
        # Every process reads the same settings; only one reports the error.
        if rank == 0:
            sys.stderr.write(f"train.py: {error}\n")
        return 2
    try:
        train(config)
    except MoteError as error:
        sys.stderr.write(f"train.py: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
