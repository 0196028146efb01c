"""What the command line imports before it knows what to do, and how it ends when it is interrupted there."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mote_fast.cli.parsers import build_parser

# Each takes a large part of a second or more to import.
SLOW = ("torch", "torchvision", "open_clip", "numpy", "av", "matplotlib", "safetensors", "yaml", "tqdm")

# Prints, for each command line of the standard input, its exit status and the slow modules that are imported then.
PROBE = """
import contextlib, io, json, sys
from mote_fast.cli import main
found = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            status = main(words)
        except SystemExit as ending:
            status = ending.code
    found.append((words, status, [name for name in %r if name in sys.modules]))
print(json.dumps(found))
"""

# Ctrl-C while the first of these modules is imported.
INTERRUPTED = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name in %r:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from mote_fast.cli import main
sys.exit(main(["doctor"]))
"""


def parsers(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words that lead to each parser."""
    yield words
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from parsers(child, (*words, name))


def leaves(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers of commands that run."""
    children = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not children:
        return [parser]
    return [leaf for action in children for child in action.choices.values() for leaf in leaves(child)]


@pytest.mark.heavy
def test_help_and_usage_errors_import_nothing_slow() -> None:
    """The help text of every command, and errors that the parser finds, come without PyTorch."""
    helps = [[*words, "--help"] for words in parsers(build_parser())]
    errors = [[], ["nosuch"], ["classify"], ["eval", "--protocol", "nosuch"], ["prepare"]]
    command = [sys.executable, "-c", PROBE % (SLOW,)]
    finished = subprocess.run(command, input=json.dumps([*helps, *errors]), capture_output=True, text=True, check=True)
    for words, status, slow in json.loads(finished.stdout):
        assert (words, status, slow) == (words, 0 if "--help" in words else 2, [])


def test_importing_the_package_imports_nothing_slow() -> None:
    """A program that only may need it pays nothing; the names come when they are used."""
    program = f"import sys, mote_fast.data, mote_fast.clip; assert not {{*{SLOW}}} & {{*sys.modules}}; mote_fast.errors"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_command_has_its_function() -> None:
    """Parsers name the functions that run; each exists."""
    for parser in leaves(build_parser()):
        module, function = parser.get_default("run").args
        assert callable(getattr(importlib.import_module(f"mote_fast.cli.{module}"), function)), parser.prog


@pytest.mark.parametrize("module", ["mote_fast.cli.program", "mote_fast.cli.options", "torch"])
def test_ctrl_c_during_the_imports(module: str) -> None:
    """One line, the status of an interrupt, and no traceback."""
    command = [sys.executable, "-c", INTERRUPTED % ((module,),)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (130, "")
    assert finished.stderr == "mote-fast: interrupted\n"
