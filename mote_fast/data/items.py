"""Lists of labelled videos: the released two-column format, CSV, a folder per class; and class names."""

from __future__ import annotations

import logging
import os
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mote_fast.data.find_videos import VIDEO_SUFFIXES, find_videos
from mote_fast.data.text_tables import BLANKS, read_lines, read_table, split_right, whole_number
from mote_fast.errors import ListError, quoted

log = logging.getLogger(__name__)

# The label of a video of unknown class.
UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class VideoItem:
    """One entry of a list: the video's path and its class (``UNLABELLED`` if unknown).

    ``num_frames`` is 0 for a video file; for a folder of extracted frames it is the number in the list's middle column.
    ``others`` are the further classes of a video with several; loaders deliver ``label``.
    """

    path: str
    label: int
    num_frames: int = 0
    others: tuple[int, ...] = ()

    @property
    def labels(self) -> tuple[int, ...]:
        """All classes, in the order of the list."""
        return (self.label, *self.others)


def read_list(path: str | os.PathLike[str], root: str | os.PathLike[str] = "") -> list[VideoItem]:
    """Read a list in the released format: lines ``PATH LABEL``, or ``FOLDER NUM_FRAMES LABEL`` for extracted frames.

    Columns are split from the right at blanks and tabs, so paths may contain them. A line has the second form if its
    path has no file extension and its middle column is a positive integer. Several labels of a video are separated by
    commas, ``PATH 3,17,42``; after a path that ends in one of ``VIDEO_SUFFIXES`` also by blanks, ``PATH 3 17 42``.
    Paths are joined to ``root``. ``read_csv`` reads ``.csv`` files.

    Raises:
        ListError: the file is missing, empty or not UTF-8, or a line has no label or one twice; the message names file
            and line.
    """
    source = Path(path)
    if source.suffix.lower() == ".csv":
        return read_csv(source, root)
    items = [_parse_line(line, where, root) for where, line in read_lines(source)]
    if not items:
        raise ListError(f"{source}: lists no videos")
    return items


def read_csv(path: str | os.PathLike[str], root: str | os.PathLike[str] = "") -> list[VideoItem]:
    """Read a CSV with the columns ``path`` and ``label`` (class indices); other columns are ignored.

    Several labels of a video are one cell, separated by commas and in double quotes: ``clip.mp4,"3,17,42"``.

    Raises:
        ListError: as ``read_list``, or the file is no CSV that ``mote_fast.data.text_tables.read_table`` reads.
    """
    source = Path(path)
    items: list[VideoItem] = []
    for row in read_table(source, ("path", "label")).rows:
        if not row.named["path"].strip():
            raise ListError(f"{row.where}: names no video")
        label, *others = _labels(row.named["label"].split(","), row.where)
        items.append(VideoItem(_join(root, row.named["path"]), label, others=tuple(others)))
    if not items:
        raise ListError(f"{source}: lists no videos")
    return items


def scan_folder(root: str | os.PathLike[str]) -> tuple[list[VideoItem], list[str]]:
    """List the videos under ``root``, whose sub-folders are the classes; return the items and the class names.

    Classes are sorted by name, videos by path within a class; folders below a class folder belong to that class.
    Links, hidden files and other files than videos are treated as ``find_videos`` does. Videos beside the class folders
    are left out, with a warning.

    Raises:
        ListError: the folder is missing, holds no class folder with a video, or a folder below it cannot be read.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise ListError(f"{folder}: no such folder; give one with a sub-folder for each class")
    paths, unreadable = find_videos(folder)
    if unreadable:
        # Left out, it could shift the numbers of all later classes.
        raise ListError(f"{unreadable[0]}; make it readable, or move it elsewhere")
    classes: dict[str, list[str]] = {}
    beside: list[str] = []
    for path in paths:
        name, _, rest = path.partition(os.sep)
        if rest:
            classes.setdefault(name, []).append(os.path.join(folder, path))
        else:
            beside.append(path)
    if not classes and beside:
        raise ListError(
            f"{folder}: its {len(beside)} videos lie in no class folders; expected {folder}/CLASS/VIDEO.mp4, or give "
            "`mote-fast prepare csv` a CSV with the columns path and label"
        )
    if not classes:
        raise ListError(f"{folder}: no videos in its sub-folders; expected {folder}/CLASS/VIDEO.mp4")
    if beside:
        log.warning("%s: %d videos beside the class folders are left out, such as %s", folder, len(beside), beside[0])
    names = sorted(classes)
    return [VideoItem(path, label) for label, name in enumerate(names) for path in sorted(classes[name])], names


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """Read class names in index order: one name per line, or a CSV with the columns ``id`` and ``name``.

    The rows of a CSV may be in any order of their ids; without the column ``id`` they are in index order, and other
    columns are ignored. Blanks around a name are removed. A name of several classes is kept for each of them, with a
    warning: their scores are equal.

    Raises:
        ListError: the file is missing, empty or not UTF-8, a name is blank, the ids are not 0 to C - 1, each once, or a
            name holds a comma without quotes around it; the message names the line.
    """
    source = Path(path)
    rows = _labels_of_csv(source) if source.suffix.lower() == ".csv" else list(enumerate(read_lines(source)))
    if not rows:
        raise ListError(f"{source}: holds no class names")
    if source.suffix.lower() != ".csv" and rows[0][1][1].replace(" ", "").lower().startswith("id,name"):
        raise ListError(f"{source}: holds a CSV; give its name the ending .csv, so that its columns are read")
    where_of: dict[int, str] = {}
    first_of: dict[str, int] = {}
    names = [""] * len(rows)
    for label, (where, name) in rows:
        if not 0 <= label < len(rows) or label in where_of:
            said = f"{label} is given twice, first at {where_of[label]}" if label in where_of else f"found {label}"
            raise ListError(f"{where}: the ids of {len(rows)} classes must be 0 to {len(rows) - 1}, each once; {said}")
        where_of[label] = where
        names[label] = name.strip()
        if not names[label]:
            raise ListError(f"{where}: the class name is blank")
    for label, name in enumerate(names):
        if first_of.setdefault(name, label) != label:
            log.warning("%s: classes %d and %d are both named %r", source, first_of[name], label, name)
    return names


def check_items(items: Sequence[VideoItem], classes: int, source: str) -> None:
    """Check that every label is a class index below ``classes``.

    Raises:
        ListError: a label is out of range; the message names the video.
    """
    for item in items:
        for label in item.labels:
            if not 0 <= label < classes:
                raise ListError(f"{source}: {item.path} has label {label}, but there are {classes} class names")


def check_one_label(items: Sequence[VideoItem], source: str, advice: str) -> None:
    """Check that no video has several labels, of which all but the first would be ignored.

    Raises:
        ListError: a video has several labels; the message names it and ends with ``advice``.
    """
    for item in items:
        if item.others:
            raise ListError(f"{source}: {item.path} has {len(item.labels)} labels; {advice}")


def _labels_of_csv(source: Path) -> list[tuple[int, tuple[str, str]]]:
    """Return (index, ("file:line", name)) of each row, in the order of the file."""
    rows = read_table(source, ("name",), ("id",)).rows
    return [
        (whole_number(row.named["id"], row.where, "an id") if "id" in row.named else at, (row.where, row.named["name"]))
        for at, row in enumerate(rows)
    ]


def _parse_line(line: str, where: str, root: str | os.PathLike[str]) -> VideoItem:
    columns = split_right(line, 2)
    if len(columns) < 2:
        raise ListError(f"{where}: expected 'PATH LABEL', found {quoted(line)}")
    several = _labels_after_suffix(line)
    if several is not None:
        path, (label, *others) = several[0], _labels(several[1], where)
        return VideoItem(_join(root, path), label, others=tuple(others))
    path, (label, *others) = columns[0], _labels(columns[1].split(","), where)
    rest = split_right(path, 2)[-1]
    if rest.endswith(",") and rest.replace(",", "").isdecimal():
        raise ListError(f"{where}: labels are separated by commas without blanks, found {quoted(line)}")
    before = split_right(path, 2)
    if len(before) == 2 and before[1].isascii() and before[1].isdecimal() and not Path(before[0]).suffix:
        frames = whole_number(before[1], where, "the number of frames")
        if frames > 0:
            return VideoItem(_join(root, before[0]), label, frames, tuple(others))
    return VideoItem(_join(root, path), label, others=tuple(others))


def _labels_after_suffix(line: str) -> tuple[str, list[str]] | None:
    """Split ``PATH LABEL LABEL ...`` whose path ends in a suffix of videos; None if the line has another form."""
    numbers = len(line.rstrip(string.digits + BLANKS))
    # The path may itself end in digits, such as those of ".mp4".
    while numbers < len(line) and line[numbers] not in BLANKS:
        numbers += 1
    cells = line[numbers:].split()
    if len(cells) < 2 or Path(line[:numbers]).suffix.lower() not in VIDEO_SUFFIXES:
        return None
    return line[:numbers], cells


def _labels(cells: Sequence[str], where: str) -> list[int]:
    labels = [whole_number(cell, where, "a label") for cell in cells]
    if len(set(labels)) < len(labels):
        repeated = next(label for label, count in Counter(labels).items() if count > 1)
        raise ListError(f"{where}: the label {repeated} is given twice")
    return labels


def _join(root: str | os.PathLike[str], path: str) -> str:
    return os.path.join(root, path) if os.fspath(root) else path
