"""Output shared by several commands: a result, its plot, and errors."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mote_fast.data.loading.faults import Failure
from mote_fast.errors import ConfigError
from mote_fast.runtime.files import make_folder, write_bytes
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.text import printable, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# An argument of Python that is an option too, and its value.
_ARGUMENT = re.compile(r"(?<![\w/.-])(clip_pretrained|clip|interpolate|dtype|device|header)=('[^']*'|[\w.]*)")

# Exit status of bad usage, as in argparse, and of a command that could not do its work.
FAILED = 2
# That of a command that did its work except for some videos.
SOME_FAILED = 3


def show(arguments: argparse.Namespace, document: Mapping[str, Any], lines: Sequence[str]) -> None:
    """Print a result on standard output, as one JSON document or as lines."""
    text = to_json(document, indent=2) if arguments.json else "\n".join(map(visible, lines))
    if text:
        write(text)


def write(text: str, end: str = "\n") -> None:
    """Print text on standard output, at once, with all that was printed before.

    Raises:
        ConfigError: standard output cannot be written, as on a full disk.
        BrokenPipeError: its reader has ended, as ``head`` does.
    """
    try:
        # A name may hold what standard output cannot encode, such as bytes that are not UTF-8.
        print(printable(text, getattr(sys.stdout, "encoding", None) or "utf-8"), end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_output()
        raise ConfigError(f"standard output cannot be written ({error})") from error


def discard_output() -> None:
    """Lead what is still to be written to standard output nowhere; Python would write it at the end, and fail again."""
    # A stream in memory, as in tests, has no descriptor.
    with suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def report(errors: Sequence[str]) -> int:
    """Print errors on standard error, one per line; return the exit status, 2 if there are any."""
    for error in errors:
        print(f"mote-fast: error: {visible(_in_options(error))}", file=sys.stderr)
    return FAILED if errors else 0


def _in_options(message: str) -> str:
    """Name options where a message of the library names arguments: "pass clip=" is "pass --clip" here."""

    def option(found: re.Match[str]) -> str:
        value = found[2].strip("'").removeprefix("torch.")
        return f"--{found[1].replace('_', '-')}" + (f" {value}" if value else "")

    return _ARGUMENT.sub(option, message)


class LogFormatter(logging.Formatter):
    """Formats each record as one line, whatever names it holds; a traceback follows on its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return visible(_in_options(super().formatMessage(record)))


def report_unread(failures: Sequence[Failure]) -> int:
    """Report the number of failed videos on standard error; return the exit status, 3 if any failed."""
    # The log named each video when it failed.
    return report_failed([f"{len(failures)} videos could not be read"] if failures else [])


def report_failed(errors: Sequence[str]) -> int:
    """Report videos that failed, as ``report`` does; return the exit status, 3 if there are any."""
    return SOME_FAILED if report(errors) else 0


def prepare_drawing(arguments: argparse.Namespace, name: str) -> None:
    """Create the folder of ``--output`` before any video is read; ``name`` is that of ``write_drawing``.

    Raises:
        ConfigError: the folder cannot be created or written to, or matplotlib is not installed.
    """
    from mote_fast.analysis.plots.canvas import check_plots

    check_plots()
    make_folder(Path(arguments.output), names=_drawing_files(name))


def write_drawing(arguments: argparse.Namespace, name: str, figure: Figure, csv: str) -> list[str]:
    """Write NAME.csv and NAME.png into the folder of ``--output``; return their paths."""
    from mote_fast.analysis.plots.canvas import to_png

    paths = [Path(arguments.output) / file for file in _drawing_files(name)]
    for path, content in zip(paths, (printable(csv).encode(), to_png(figure)), strict=True):
        write_bytes(path, content)
    return [str(path) for path in paths]


def _drawing_files(name: str) -> tuple[str, str]:
    return f"{name}.csv", f"{name}.png"
