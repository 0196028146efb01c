"""The command line: ``mote-fast COMMAND``, each command in its own file."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence

from mote_fast.cli import (
    analyse,
    base2novel,
    classify,
    configs,
    convert,
    demo,
    doctor,
    download,
    embed,
    eval,
    models,
    options,
    outputs,
    prepare,
    reproduce,
    retrieval,
    sweep,
    tradeoff,
    train,
)
from mote_fast.errors import MoteError, UntrainedWarning

INTERRUPTED = 130
# What a shell reports of a tool that ends because the reader of its output has ended.
PIPE_CLOSED = 141


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; its namespace has ``run``, which takes the namespace and returns the status."""
    parser = options.CommandParser(prog="mote-fast", description="Open-vocabulary video recognition with MoTE on CLIP.")
    parser.add_argument("--verbose", action="store_true", help="log what the library does")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    of_results = (reproduce, tradeoff, base2novel)
    of_models = (classify, embed, eval, retrieval, *of_results, sweep, analyse, convert, models, download)
    for module in (*of_models, train, configs, prepare, doctor, demo):
        module.add_command(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 if all of it succeeded, 2 if any part failed."""
    try:
        try:
            arguments = options.parse(build_parser(), argv)
            handler = logging.StreamHandler()
            handler.setFormatter(outputs.LogFormatter("%(levelname)s: %(message)s"))
            logging.basicConfig(handlers=[handler], level=logging.INFO if arguments.verbose else logging.WARNING)
            with warnings.catch_warnings():
                # Commands print it themselves, on one line.
                warnings.simplefilter("ignore", UntrainedWarning)
                return arguments.run(arguments)
        finally:
            # Also a help text. At the end of the interpreter an error could not be handled.
            outputs.write("", end="")
    except MoteError as error:
        return outputs.report([str(error)])
    except BrokenPipeError:
        outputs.discard_output()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print("mote-fast: interrupted", file=sys.stderr)
        return INTERRUPTED
