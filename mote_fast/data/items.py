"""Lists of labelled videos: the released two-column format, CSV, a folder per class; and class names."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mote_fast.errors import ListError

# File extensions that a folder scan accepts as videos.
VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".3gp"}
)

# The label of a video of unknown class.
UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class VideoItem:
    """One entry of a list: the video's path and its class (``UNLABELLED`` if unknown).

    ``num_frames`` is 0 for a video file; for a folder of extracted frames it is the number in the list's middle column.
    """

    path: str
    label: int
    num_frames: int = 0


def read_list(path: str | os.PathLike[str], root: str | os.PathLike[str] = "") -> list[VideoItem]:
    """Read a list in the released format: lines ``PATH LABEL``, or ``FOLDER NUM_FRAMES LABEL`` for extracted frames.

    Columns are split from the right at white space, so paths may contain spaces. A line has the second form if its path
    has no file extension and its middle column is a positive integer. Paths are joined to ``root``. ``read_csv`` reads
    ``.csv`` files.

    Raises:
        ListError: the file is missing, empty or not text, or a line has no label; the message names file and line.
    """
    source = Path(path)
    text = _read_text(source)
    if source.suffix.lower() == ".csv":
        return read_csv(source, root)
    items = [_parse_line(line, f"{source}:{number}", root) for number, line in _lines(text)]
    if not items:
        raise ListError(f"{source}: lists no videos")
    return items


def read_csv(path: str | os.PathLike[str], root: str | os.PathLike[str] = "") -> list[VideoItem]:
    """Read a CSV with the columns ``path`` and ``label`` (class indices); other columns are ignored.

    Raises:
        ListError: as ``read_list``, or a column is missing.
    """
    source = Path(path)
    reader = csv.DictReader(io.StringIO(_read_text(source)))
    missing = {"path", "label"} - set(reader.fieldnames or ())
    if missing:
        raise ListError(f"{source}: needs the columns 'path' and 'label', lacks {sorted(missing)}")
    items = [VideoItem(_join(root, row["path"]), _label(row["label"], f"{source}:{reader.line_num}")) for row in reader]
    if not items:
        raise ListError(f"{source}: lists no videos")
    return items


def scan_folder(root: str | os.PathLike[str]) -> tuple[list[VideoItem], list[str]]:
    """List the videos under ``root``, whose sub-folders are the classes; return the items and the class names.

    Classes are sorted by name, videos by path within a class; folders below a class folder belong to that class.
    Files without a known extension (``VIDEO_SUFFIXES``) are ignored.

    Raises:
        ListError: the folder is missing, or holds no class folder with a video.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise ListError(f"{folder}: no such folder; give one with a sub-folder for each class")
    names = sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    found = [sorted(_videos_under(folder / name)) for name in names]
    kept = [(name, paths) for name, paths in zip(names, found, strict=True) if paths]
    if not kept:
        raise ListError(f"{folder}: no videos in its sub-folders; expected {folder}/CLASS/VIDEO.mp4")
    items = [VideoItem(path, label) for label, (_, paths) in enumerate(kept) for path in paths]
    return items, [name for name, _ in kept]


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """Read class names in index order: one name per line, or a CSV with the columns ``id`` and ``name``.

    The rows of a CSV without the column ``id`` are in index order; other columns are ignored.

    Raises:
        ListError: the file is missing or empty, a name is blank, or the ids are not 0 to C - 1, each once.
    """
    source = Path(path)
    text = _read_text(source)
    if source.suffix.lower() != ".csv":
        names = [line for _, line in _lines(text)]
    else:
        reader = csv.DictReader(io.StringIO(text))
        columns = reader.fieldnames or ()
        if "name" not in columns:
            raise ListError(f"{source}: needs a column 'name', found {reader.fieldnames}")
        rows = [
            (_label(row["id"], f"{source}:{reader.line_num}") if "id" in columns else at, (row["name"] or "").strip())
            for at, row in enumerate(reader)
        ]
        rows.sort()
        if [label for label, _ in rows] != list(range(len(rows))):
            raise ListError(f"{source}: ids must be 0 to {len(rows) - 1}, each once")
        names = [name for _, name in rows]
    if not names or not all(names):
        raise ListError(f"{source}: holds no class names, or a blank one")
    return names


def check_items(items: Sequence[VideoItem], classes: int, source: str) -> None:
    """Check that every label is a class index below ``classes``.

    Raises:
        ListError: a label is out of range; the message names the video.
    """
    for item in items:
        if not 0 <= item.label < classes:
            raise ListError(f"{source}: {item.path} has label {item.label}, but there are {classes} class names")


def _parse_line(line: str, where: str, root: str | os.PathLike[str]) -> VideoItem:
    columns = line.rsplit(maxsplit=1)
    if len(columns) < 2:
        raise ListError(f"{where}: expected 'PATH LABEL', found {line!r}")
    path, label = columns[0], _label(columns[1], where)
    before = path.rsplit(maxsplit=1)
    if len(before) == 2 and before[1].isdecimal() and int(before[1]) > 0 and not Path(before[0]).suffix:
        return VideoItem(_join(root, before[0]), label, int(before[1]))
    return VideoItem(_join(root, path), label)


def _label(text: str | None, where: str) -> int:
    try:
        return int(text or "")
    except ValueError:
        raise ListError(f"{where}: a label must be an integer, found {text!r}") from None


def _join(root: str | os.PathLike[str], path: str) -> str:
    return os.path.join(root, path) if os.fspath(root) else path


def _lines(text: str) -> Iterator[tuple[int, str]]:
    return ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def _read_text(path: Path) -> str:
    try:
        # utf-8-sig reads files with and without the byte order mark that spreadsheets write.
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ListError(f"{path}: cannot be read ({error})") from error


def _videos_under(folder: Path) -> Iterator[str]:
    for at, _, names in os.walk(folder):
        yield from (os.path.join(at, name) for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES)
