"""Writes results one by one, as they come: text for people; JSON, JSON lines or CSV for programs."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from mote_fast.cli import outputs
from mote_fast.errors import ConfigError, one_line
from mote_fast.runtime.files import check_file, write_text
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.text import printable, visible

# The form that the suffix of --output asks for.
FORMS = {".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".txt": "text"}

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """How one record becomes lines of text, and rows of a CSV file with ``columns``."""

    lines: Callable[[Record], Sequence[str]]
    rows: Callable[[Record], Sequence[Sequence[object]]]
    columns: Sequence[str]


class Writer(Protocol):
    """What takes the records of a command, one by one."""

    def begin(self, facts: Mapping[str, Any], columns: Sequence[str] = ()) -> None:
        """Take what all records have in common, and further columns of a table; an earlier file is emptied."""

    def add(self, record: Record) -> None:
        """Take a record."""

    def finish(self, further: Mapping[str, Any]) -> None:
        """Write what is still to be written, with ``further`` facts of all records."""


class ResultWriter:
    """Writes records to standard output, or to a file of lines, each at once; JSON is one document in the end."""

    def __init__(self, form: str, layout: Layout, path: Path | None = None) -> None:
        self.form, self.layout, self.path = form, layout, path
        self.facts: Mapping[str, Any] = {}
        self._records: list[Record] = []
        self._file: TextIO | None = None

    def begin(self, facts: Mapping[str, Any], columns: Sequence[str] = ()) -> None:
        """See ``Writer``."""
        self.facts = facts
        if self.path is not None and self.form != "json":
            try:
                self._file = self.path.open("w", encoding="utf-8", newline="")
            except OSError as error:
                raise self._unwritable(error) from error
        if self.form == "csv":
            self._write(_csv_lines([[*self.layout.columns, *columns]]))

    def add(self, record: Record) -> None:
        """See ``Writer``."""
        if self.form == "json":
            self._records.append(record)
        elif self.form == "jsonl":
            self._write([to_json({"checkpoint": self.facts["checkpoint"], **record})])
        elif self.form == "csv":
            self._write(_csv_lines(self.layout.rows(record)))
        else:
            self._write([visible(line) for line in self.layout.lines(record)])

    def finish(self, further: Mapping[str, Any]) -> None:
        """See ``Writer``; closes the file."""
        if self.form == "json":
            text = to_json({**self.facts, "videos": self._records, **further}, indent=2)
            if self.path is None:
                outputs.write(text)
            else:
                write_text(self.path, text + "\n")
        if self._file is not None:
            self._file.close()

    def _write(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        text = "\n".join(lines)
        if self._file is None:
            with tqdm.external_write_mode(sys.stdout):
                outputs.write(text)
            return
        try:
            self._file.write(printable(text) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(f"--output {self.path}: cannot be written ({one_line(error)})")


class _Summary:
    """Says on standard output, in the end, how much a file holds."""

    def __init__(self, path: Path) -> None:
        self.path, self._all, self._read = path, 0, 0

    def begin(self, facts: Mapping[str, Any], columns: Sequence[str] = ()) -> None:
        """See ``Writer``."""

    def add(self, record: Record) -> None:
        """See ``Writer``."""
        self._all += 1
        self._read += not record["error"]

    def finish(self, further: Mapping[str, Any]) -> None:
        """See ``Writer``."""
        outputs.write(visible(f"{self.path}: {self._read} of {self._all} videos"))


def writers_of(
    arguments: argparse.Namespace, layout: Layout, others: Mapping[str, Callable[[Path], Writer]] | None = None
) -> list[Writer]:
    """Return the writers that the options ask for, before any work is done.

    Args:
        arguments: with ``form`` and ``output``.
        layout: of the records.
        others: the writers of further suffixes.

    Raises:
        ConfigError: ``--output`` has an unknown suffix, or cannot be written.
    """
    writers: list[Writer] = []
    if arguments.output is not None:
        path = Path(arguments.output)
        suffix, others = path.suffix.lower(), others or {}
        known = [*others, *FORMS]
        if suffix not in known:
            raise ConfigError(f"--output {path}: its suffix says the form; give one of {', '.join(known)}")
        check_file(path)
        writers.append(others[suffix](path) if suffix in others else ResultWriter(FORMS[suffix], layout, path))
        if arguments.form is None:
            writers.append(_Summary(path))
    if arguments.form is not None or arguments.output is None:
        writers.append(ResultWriter(arguments.form or "text", layout))
    return writers


def _csv_lines(rows: Sequence[Sequence[object]]) -> list[str]:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return [text.getvalue().removesuffix("\n")] if rows else []
