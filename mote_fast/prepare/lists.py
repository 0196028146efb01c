"""What a preparation step makes: lists of videos in the released format, and the names of their classes."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mote_fast.data.items import VideoItem
from mote_fast.errors import ListError

# The label file of the lists that cover all classes of a data set.
LABELS_FILE = "labels.csv"


@dataclass(frozen=True)
class VideoList:
    """One list to be written.

    Attributes:
        name: of its file.
        items: paths are relative to the videos' root.
        labels: name of the file with the names of its classes.
    """

    name: str
    items: tuple[VideoItem, ...]
    labels: str = LABELS_FILE


@dataclass(frozen=True)
class DataSet:
    """A data set as its annotations describe it, whether or not its videos are there.

    Attributes:
        name: such as "ucf101".
        lists: in the order in which they are reported.
        labels: file name -> class names in the order of their indices, one entry for every ``VideoList.labels``.
        flip_labels: label -> label of the mirrored video, see ``mote_fast.prepare.flip``.
        notes: what the user should know about these annotations, one sentence each.
    """

    name: str
    lists: tuple[VideoList, ...]
    labels: Mapping[str, tuple[str, ...]]
    flip_labels: Mapping[int, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def paths(self) -> list[str]:
        """Every video of every list once, in the order of its first mention."""
        return list(dict.fromkeys(item.path for each in self.lists for item in each.items))


def format_list(items: Iterable[VideoItem]) -> str:
    """Return the text of a list: ``PATH LABEL`` a line, or ``FOLDER NUM_FRAMES LABEL`` for extracted frames.

    ``mote_fast.data.items.read_list`` gives the same items back.

    Raises:
        ListError: a path cannot stand in a list, see ``why_unlistable``.
    """
    lines: list[str] = []
    for item in items:
        reason = why_unlistable(item.path)
        if reason:
            raise ListError(f"{item.path!r} cannot stand in a list: {reason}")
        middle = f" {item.num_frames}" if item.num_frames else ""
        lines.append(f"{item.path}{middle} {item.label}\n")
    return "".join(lines)


def why_unlistable(path: str) -> str | None:
    """Say why a line of a list cannot hold a path, or None if it can. Spaces inside a path are allowed."""
    if path.splitlines() != [path]:
        return "its name holds a line break; rename it"
    if path != path.strip() or path.startswith("\ufeff"):
        return "its name begins or ends with a blank; rename it"
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not valid UTF-8; rename it"
    return None


def format_labels(names: Sequence[str]) -> str:
    """Return the text of a label file in the released format, a CSV with the columns ``id`` and ``name``.

    Raises:
        ListError: two classes have the same name, or one has none.
    """
    if not all(names):
        raise ListError(f"class {list(names).index('')} has no name")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ListError(f"two classes are named {repeated[0]!r}; rename one")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "name"))
    writer.writerows(enumerate(names))
    return text.getvalue()


def split_camel_case(name: str) -> str:
    """Put a space where a capital follows a small letter: "HandstandPushups" to "Handstand Pushups"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def underscores_to_spaces(name: str) -> str:
    """Replace underscores by spaces: "brush_hair" to "brush hair"."""
    return " ".join(name.replace("_", " ").split())
