"""Reads the text files that describe data: lines, CSV and JSON, by one set of rules.

The text is UTF-8, with or without a byte order mark. Lines end in LF, CRLF or CR, and in nothing else: the other line
separators of Unicode may be part of a name. Every error names the file, and the line where there is one.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mote_fast.errors import ListError, quoted
from mote_fast.runtime.json_text import RepeatedKeyError, from_json
from mote_fast.runtime.reading import read_small

# Blanks between the columns of a line. Others, such as a no-break space, may be part of a name.
BLANKS = " \t"

# Bytes of a list, of class names or of annotations; the largest published ones take a tenth.
MAX_BYTES = 2**30

# UTF-32 comes first: its mark begins with that of UTF-16.
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

# ASCII digits, and few enough for int64; int() also takes "1_0" and the digits of other scripts.
_INTEGER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True)
class Row:
    """A row of a CSV file.

    Attributes:
        where: "file:line", the line on which the row begins.
        cells: the cells as written, in the order of ``Table.header``.
        named: the cells of the requested columns that the file has, by name.
    """

    where: str
    cells: list[str]
    named: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A CSV file: its header as written, and its rows."""

    header: list[str]
    rows: list[Row]

    def place(self, name: str) -> int | None:
        """Return the position of the column with this name, or None."""
        names = [_plain(cell) for cell in self.header]
        return names.index(name) if name in names else None


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a text file; the lines of the result end in LF.

    Raises:
        ListError: the file cannot be read, is not UTF-8, or holds a NUL byte.
    """
    try:
        content = read_small(path, MAX_BYTES)
    except OSError as error:
        raise ListError(f"{path}: cannot be read ({error.strerror or error})") from error
    for mark, name in _OTHER_MARKS.items():
        if content.startswith(mark):
            raise ListError(f"{path}: is {name} text; save it as UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = _line_of(content, error.start)
        raise ListError(
            f"{path}:{line}: the byte 0x{content[error.start]:02X} is not UTF-8; convert the file to UTF-8 "
            "(from Latin-1, for example: iconv -f latin1 -t utf-8)"
        ) from error
    if "\0" in text:
        raise ListError(f"{path}:{_line_of(content, content.index(0))}: holds a NUL byte, so it is not UTF-8 text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yield ("file:line", line) of each line that is not blank, without blanks around it.

    Raises:
        ListError: see ``read_text``.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if stripped := line.strip(BLANKS):
            yield f"{path}:{number}", stripped


def split_right(line: str, columns: int) -> list[str]:
    """Split a line at blanks into at most ``columns`` cells, from the right: only the first may contain blanks."""
    cells: list[str] = []
    rest = line.strip(BLANKS)
    while len(cells) < columns - 1 and (at := max(map(rest.rfind, BLANKS))) >= 0:
        cells.append(rest[at + 1 :])
        rest = rest[:at].rstrip(BLANKS)
    return [rest, *reversed(cells)]


def read_table(path: str | os.PathLike[str], required: Sequence[str], optional: Sequence[str] = ()) -> Table:
    """Read a CSV file whose header names its columns; case and blanks around the names do not matter.

    Blank rows are left out. Other columns than the requested ones are kept as they are.

    Args:
        path: the file.
        required: names of columns that the file must have, lower case.
        optional: names of columns that it may have.

    Raises:
        ListError: the file cannot be read, a required column is missing or two columns have one of the names, a row has
            more or fewer cells than the header, a quote is not closed, or a cell of a requested column holds a line
            break.
    """
    rows = _csv_rows(path)
    _, header = next(rows, ("", []))
    places = _places(path, header, (*required, *optional))
    missing = [name for name in required if name not in places]
    if missing:
        found = next((mark for mark in ";\t|" if any(mark in cell for cell in header)), None)
        advice = f"; its columns are separated by {found!r}, save them separated by commas" if found else ""
        raise ListError(f"{path}: lacks the columns {missing}, has {header}{advice}")
    unnamed = [at for at, cell in enumerate(header) if not _plain(cell)]
    table = Table(header, [])
    for where, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < len(header):
            raise ListError(f"{where}: has {len(cells)} columns, the header has {len(header)}")
        if len(cells) > len(header) or any(cells[at].strip() for at in unnamed):
            raise ListError(
                f"{where}: has more columns than the header names; a cell that contains a comma needs double quotes "
                "around it"
            )
        named = {name: cells[at] for name, at in places.items()}
        for name, cell in named.items():
            if "\n" in cell:
                raise ListError(f"{where}: its {name} goes on over several lines; is a closing quote missing?")
        table.rows.append(Row(where, cells, named))
    return table


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        ListError: the file cannot be read, is not JSON, or names a key of an object twice.
    """
    text = read_text(path)
    try:
        return from_json(text)
    except RepeatedKeyError as error:
        raise ListError(f"{path}: {error}") from error
    except ValueError as error:
        line = getattr(error, "lineno", None)
        raise ListError(f"{path}{f':{line}' if line else ''}: not JSON ({getattr(error, 'msg', error)})") from error


def whole_number(value: object, where: str, what: str, least: int | None = None) -> int:
    """Read an integer: of JSON, or written in ASCII digits.

    Args:
        value: the cell or JSON value.
        where: "file:line", for the message.
        what: the name of the number, for the message.
        least: the smallest value allowed; None for any.

    Raises:
        ListError: the value is something else, or below ``least``.
    """
    found: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and _INTEGER.fullmatch(value.strip(BLANKS)):
        found = int(value)
    if found is None or (least is not None and found < least):
        bound = "" if least is None else f" from {least}"
        raise ListError(f"{where}: {what} must be an integer{bound}, found {quoted(value)}")
    return found


def _csv_rows(path: str | os.PathLike[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield ("file:line", cells) of each row that has cells."""
    lines = (f"{line}\n" for line in read_text(path).removesuffix("\n").split("\n"))
    reader = csv.reader(lines, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ListError(f"{path}:{first}: not CSV ({error}); is a closing quote missing?") from error
        if cells:
            yield f"{path}:{first}", cells


def _places(path: str | os.PathLike[str], header: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    found = [_plain(cell) for cell in header]
    for name in names:
        if found.count(name) > 1:
            raise ListError(f"{path}: two columns are named {name!r}")
    return {name: found.index(name) for name in names if name in found}


def _plain(cell: str) -> str:
    return cell.strip().casefold()


def _line_of(content: bytes, position: int) -> int:
    before = content[:position].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return before.count(b"\n") + 1
