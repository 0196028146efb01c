"""The parser of the command line, which imports nothing that takes time: the commands are imported when they run."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Sequence
from typing import Any

from mote_fast.cli import options
from mote_fast.cli.parsers import (
    batch_commands,
    list_commands,
    model_commands,
    prepare_commands,
    result_commands,
    search_commands,
    serve_commands,
    train_commands,
    video_commands,
)
from mote_fast.version import __version__


def build_parser() -> options.CommandParser:
    """Build the parser of all commands; its namespace has ``run``, which takes the namespace and returns the status."""
    parser = options.CommandParser(prog="mote-fast", description="Open-vocabulary video recognition with MoTE on CLIP.")
    parser.add_argument("--version", action=_Version, help="print the versions of mote_fast and of PyTorch, and exit")
    parser.set_defaults(verbose=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (
        video_commands,
        batch_commands,
        search_commands,
        serve_commands,
        list_commands,
        result_commands,
        model_commands,
        train_commands,
        prepare_commands,
    ):
        module.add_commands(commands)
    _add_verbose(parser)
    return parser


def _add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add the option to a parser and those of its commands, so that it may stand before and after them."""
    parser.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help="log what the library does")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _add_verbose(child)


class _Version(argparse.Action):
    """Prints the versions, and exits."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, *given: object) -> None:
        """See ``argparse.Action``."""
        print(f"mote_fast {__version__} (torch {importlib.metadata.version('torch')})")
        parser.exit()
