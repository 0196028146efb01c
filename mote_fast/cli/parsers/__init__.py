"""The parser of the command line, which imports nothing that takes time: the commands are imported when they run."""

from __future__ import annotations

from mote_fast.cli import options
from mote_fast.cli.parsers import (
    list_commands,
    model_commands,
    prepare_commands,
    result_commands,
    train_commands,
    video_commands,
)


def build_parser() -> options.CommandParser:
    """Build the parser of all commands; its namespace has ``run``, which takes the namespace and returns the status."""
    parser = options.CommandParser(prog="mote-fast", description="Open-vocabulary video recognition with MoTE on CLIP.")
    parser.add_argument("--verbose", action="store_true", help="log what the library does")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (
        video_commands,
        list_commands,
        result_commands,
        model_commands,
        train_commands,
        prepare_commands,
    ):
        module.add_commands(commands)
    return parser
