"""Runs one command: parses the arguments, sets up the log, and turns errors into one line and an exit status."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from mote_fast.cli import options, outputs
from mote_fast.cli.parsers import build_parser
from mote_fast.errors import MoteError, UntrainedWarning

# What a shell reports of a tool that ends because the reader of its output has ended.
PIPE_CLOSED = 141


def run_command(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; see ``mote_fast.cli.main``."""
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
