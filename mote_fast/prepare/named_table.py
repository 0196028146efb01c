"""Training and validation lists from a CSV of paths and class names."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from mote_fast.data.items import VideoItem
from mote_fast.data.text_tables import read_table
from mote_fast.errors import ListError, quoted
from mote_fast.prepare.class_lists import TRAIN_NAMES, VAL_NAMES, check_share, data_set_of, split_classes
from mote_fast.prepare.lists import DataSet

# The columns that are read.
_NEEDED = ("path", "label")
_SPLIT = "split"


def read_named_table(path: Path, *, val_share: float | None = None, seed: int = 0) -> DataSet:
    """List the videos of a CSV with the columns ``path`` and ``label``, a class name; classes are sorted by name.

    Paths are relative to the root of the videos. A column ``split`` says which rows train ("train") and which validate
    ("val", "test"); without it, or if none validates, ``val_share`` of each class does, see ``split_classes``.

    Raises:
        ConfigError: ``val_share`` is not in [0, 1).
        ListError: the file cannot be read or has no rows, a cell is blank, a path is listed twice, a split is unknown,
            or all labels are numbers; the message names the line.
    """
    check_share(val_share)
    rows = read_table(path, _NEEDED, (_SPLIT,)).rows
    if not rows:
        raise ListError(f"{path}: lists no videos")
    names = sorted({row.named["label"].strip() for row in rows})
    if all(name.isdecimal() for name in names):
        raise ListError(
            f"{path}: its labels are numbers, not class names; train on it as it is: data.train_list={path} "
            "data.labels=FILE, with a file of the names"
        )
    indices = {name: index for index, name in enumerate(names)}
    parts: defaultdict[str, list[VideoItem]] = defaultdict(list)
    seen: dict[str, str] = {}
    for row in rows:
        video, label = row.named["path"].strip(), row.named["label"].strip()
        if not video or not label:
            raise ListError(f"{row.where}: its {'label' if video else 'path'} is blank")
        if video in seen:
            raise ListError(f"{row.where}: {quoted(video)} is listed already, at {seen[video]}")
        seen[video] = row.where
        parts[_part(row.named.get(_SPLIT, ""), row.where)].append(VideoItem(video, indices[label]))
    if parts["val"]:
        return data_set_of("csv", parts, names, ())
    return split_classes("csv", parts["train"], names, val_share, seed)


def _part(cell: str, where: str) -> str:
    name = cell.strip().lower()
    if not name or name in TRAIN_NAMES:
        return "train"
    if name in VAL_NAMES:
        return "val"
    known = ", ".join(sorted(TRAIN_NAMES | VAL_NAMES))
    raise ListError(f"{where}: its split is {quoted(cell)}; known are {known}")
