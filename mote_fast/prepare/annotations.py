"""Reading the annotation files of published data sets, with errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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


def read_text(path: Path) -> str:
    """Read an annotation file, with or without a byte order mark.

    Raises:
        ListError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ListError(f"{path}: cannot be read ({error})") from error


def rows_of(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """Yield ("file:line", columns) for each non-blank line, split at white space from the right.

    Raises:
        ListError: a line has fewer columns.
    """
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        cells = line.rsplit(maxsplit=columns - 1)
        if len(cells) < columns:
            raise ListError(f"{path}:{number}: expected {columns} columns, found {line.strip()!r}")
        yield f"{path}:{number}", [cell.strip() for cell in cells]


def read_json(path: Path) -> Any:
    """Read a JSON annotation file.

    Raises:
        ListError: the file is not JSON; the message names the line.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ListError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error


def whole_number(text: Any, where: str, what: str) -> int:
    """Read an integer cell.

    Raises:
        ListError: the cell is not an integer; the message names it by ``what``.
    """
    try:
        return int(text)
    except (TypeError, ValueError):
        raise ListError(f"{where}: {what} must be an integer, found {text!r}") from None
