"""The results of a preparation step: lists of videos in the released format, and class names."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mote_fast.data.flip_labels import FlipLabels
from mote_fast.data.items import VideoItem
from mote_fast.data.text_tables import BLANKS
from mote_fast.errors import ListError
from mote_fast.runtime.text import is_text

# The label file of the lists that cover all classes of a data set.
LABELS_FILE = "labels.csv"

# Locks a folder while lists are made for it.
LOCK_FILE = ".prepare.lock"


@dataclass(frozen=True)
class VideoList:
    """One list to be written.

    Attributes:
        name: name of the file.
        items: videos, with paths relative to the videos' root.
        labels: name of the file with the class names.
    """

    name: str
    items: tuple[VideoItem, ...]
    labels: str = LABELS_FILE


@dataclass(frozen=True)
class DataSet:
    """A data set as its annotations describe it; its videos may be missing.

    Attributes:
        name: such as "ucf101".
        lists: in the order of the report.
        labels: file name -> class names in index order, one entry for every ``VideoList.labels``.
        flip_labels: labels of mirrored videos, see ``mote_fast.data.flip_labels``; None for no file of them.
        notes: notes on these annotations for the user, one sentence each.
    """

    name: str
    lists: tuple[VideoList, ...]
    labels: Mapping[str, tuple[str, ...]]
    flip_labels: FlipLabels | None = None
    notes: tuple[str, ...] = ()

    def paths(self) -> list[str]:
        """Return every video of every list once, in the order of first occurrence."""
        return list(dict.fromkeys(item.path for each in self.lists for item in each.items))


def format_list(items: Iterable[VideoItem]) -> str:
    """Return the text of a list: lines ``PATH LABEL``, or ``FOLDER NUM_FRAMES LABEL`` for extracted frames.

    Several labels are separated by commas. ``mote_fast.data.items.read_list`` reads the same items from it.

    Raises:
        ListError: a list cannot hold a path, see ``why_unlistable``.
    """
    lines: list[str] = []
    for item in items:
        reason = why_unlistable(item.path)
        if reason:
            raise ListError(f"{item.path!r} cannot be listed: {reason}")
        middle = f" {item.num_frames}" if item.num_frames else ""
        lines.append(f"{item.path}{middle} {','.join(map(str, item.labels))}\n")
    return "".join(lines)


def why_unlistable(path: str) -> str | None:
    """Return why a list cannot hold a path, or None if it can. Spaces inside a path are allowed."""
    if "\n" in path or "\r" in path:
        return "its name holds a line break; rename it"
    if path != path.strip(BLANKS) or path.startswith("\ufeff"):
        return "its name begins or ends with a blank; rename it"
    if not path or "\0" in path:
        return "its name is empty or holds a NUL byte; rename it"
    if not is_text(path):
        return "its name is not valid UTF-8; rename it"
    return None


def format_labels(names: Sequence[str]) -> str:
    """Return the text of a label file in the released format, a CSV with the columns ``id`` and ``name``.

    Raises:
        ListError: two classes have the same name, or a class has no name or one that such a file cannot hold.
    """
    for label, name in enumerate(names):
        if not name.strip():
            raise ListError(f"class {label} has no name")
        if not is_text(name) or any(mark in name for mark in "\n\r\0"):
            raise ListError(f"class {label} is named {name!r}, which is not one line of UTF-8; rename it")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ListError(f"two classes are named {repeated[0]!r}; rename one")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "name"))
    writer.writerows(enumerate(names))
    return text.getvalue()


def split_camel_case(name: str) -> str:
    """Insert a space before a capital that follows a small letter: "HandstandPushups" to "Handstand Pushups"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
