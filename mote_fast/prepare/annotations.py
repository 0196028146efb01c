"""Finds the annotation files of published data sets, and reads those of columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mote_fast.data.text_tables import read_lines, split_right
from mote_fast.errors import ListError


def find_files(places: Sequence[Path], *patterns: str) -> list[Path]:
    """Find annotation files by name; ``places`` are files, or folders that are searched.

    Returns the files sorted by name, each once.

    Raises:
        ListError: a place does not exist, or no file matches any of the patterns.
    """
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            matching = (path for pattern in patterns for path in place.rglob(pattern) if path.is_file())
            # Archives packed on a Mac hold a hidden companion of every file.
            found.update((path, None) for path in matching if not path.name.startswith("."))
        elif not place.is_file():
            raise ListError(f"{place}: no such file or folder; give --annotations the official annotation files")
        elif any(place.match(pattern) for pattern in patterns):
            found[place] = None
    if not found:
        where = ", ".join(map(str, places))
        raise ListError(f"{where}: no file named {' or '.join(patterns)}; give --annotations the folder that holds it")
    return sorted(found, key=lambda path: (path.name, path))


def find_file(places: Sequence[Path], *patterns: str) -> Path:
    """Find the only annotation file of that name.

    Raises:
        ListError: as ``find_files``, or several files match.
    """
    found = find_files(places, *patterns)
    if len(found) > 1:
        raise ListError(f"{found[0]} and {found[1]} both match {' or '.join(patterns)}; name the one that holds")
    return found[0]


def rows_of(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """Yield ("file:line", columns) for each non-blank line, split at blanks and tabs from the right.

    Raises:
        ListError: the file cannot be read, or a line has fewer columns.
    """
    for where, line in read_lines(path):
        cells = split_right(line, columns)
        if len(cells) < columns:
            raise ListError(f"{where}: expected {columns} columns, found {line!r}")
        yield where, cells
