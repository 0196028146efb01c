"""Kinetics-400, 600 and 700 from the official CSV files, and the zero-shot splits of Kinetics-600."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mote_fast.data.items import VideoItem
from mote_fast.data.text_tables import Row, read_table, whole_number
from mote_fast.errors import ListError
from mote_fast.prepare.annotations import find_files
from mote_fast.prepare.k600_zero_shot import zero_shot_splits
from mote_fast.prepare.lists import LABELS_FILE, DataSet, VideoList
from mote_fast.prepare.tree import VideoTree
from mote_fast.runtime.text import plain

_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")

# Names of a split in the CSV files of the releases, and of its folder in copies of the data set.
_SPLITS = {"train": "train", "training": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}

_CLASSES = {"k400": 400, "k600": 600, "k700": 700}


def read_k400(annotations: Sequence[Path], root: Path) -> DataSet:
    """Read Kinetics-400, see ``read_kinetics``."""
    return read_kinetics("k400", annotations, root)


def read_k600(annotations: Sequence[Path], root: Path) -> DataSet:
    """Read Kinetics-600 and add the paper's three zero-shot splits of its test videos.

    Each split has its own list and labels, named as in the released code: ``k160_test_split1.txt`` with
    ``k160_labels_split1.csv``. See ``mote_fast.prepare.k600_zero_shot`` for the classes.
    """
    whole = read_kinetics("k600", annotations, root)
    classes = {plain(name): label for label, name in enumerate(whole.labels[LABELS_FILE])}
    tested = next((each for each in whole.lists if each.name == "testlist.txt"), None)
    if tested is None:
        note = "No CSV has test videos, so the lists of the zero-shot splits were not made."
        return replace(whole, notes=(*whole.notes, note))
    lists, labels, notes = list(whole.lists), dict(whole.labels), list(whole.notes)
    for number, names in enumerate(zero_shot_splits(), 1):
        absent = [name for name in names if plain(name) not in classes]
        if absent:
            notes.append(f"Zero-shot split {number}: {len(absent)} of {len(names)} classes are in no CSV.")
        renumbered = {classes[plain(name)]: label for label, name in enumerate(names) if plain(name) in classes}
        kept = (item for item in tested.items if item.label in renumbered)
        items = sorted((VideoItem(item.path, renumbered[item.label]) for item in kept), key=lambda item: item.label)
        labels[f"k160_labels_split{number}.csv"] = names
        lists.append(VideoList(f"k160_test_split{number}.txt", tuple(items), f"k160_labels_split{number}.csv"))
    return replace(whole, lists=tuple(lists), labels=labels, notes=tuple(notes))


def read_k700(annotations: Sequence[Path], root: Path) -> DataSet:
    """Read Kinetics-700, the release of 2020 or the one of 2019, see ``read_kinetics``."""
    return read_kinetics("k700", annotations, root)


def read_kinetics(name: str, annotations: Sequence[Path], root: Path) -> DataSet:
    """Read CSV files with the columns label, youtube_id, time_start, time_end and split; other columns are ignored.

    Classes are numbered by name. A clip is searched as ``ID_START_END`` with six digits for each second, and as ``ID``,
    in any folder and with any video extension; a missing clip is listed as ``the_class/ID_START_END.mp4``. A CSV of
    test clips whose labels were held out has no column label, and its clips are in no list.

    Raises:
        ListError: a CSV is missing, lacks a column, or has a malformed row.
    """
    rows: list[tuple[str, str, str]] = []
    notes: list[str] = []
    for source in find_files(annotations, "*.csv"):
        if unlabelled := _count_held_out(source):
            notes.append(f"{source.name} states no labels, so its {unlabelled} test clips are in no list.")
        else:
            rows += _read_rows(source)
    if not rows:
        raise ListError(f"{', '.join(map(str, annotations))}: no CSV states labels; give --annotations those that do")
    classes = sorted({label for label, _, _ in rows})
    indices = {label: index for index, label in enumerate(classes)}
    tree = VideoTree(root)
    items: dict[str, list[VideoItem]] = {}
    for label, stem, split in rows:
        near = (label, *(folder for folder, which in _SPLITS.items() if which == split))
        path = tree.find(stem, *near) or tree.find(_video_id(stem), *near)
        path = path or f"{label.replace(' ', '_')}/{stem}.mp4"
        items.setdefault(split, []).append(VideoItem(path, indices[label]))
    lists = (VideoList(f"{split}list.txt", tuple(items[split])) for split in ("train", "val", "test") if split in items)
    if len(classes) != _CLASSES[name]:
        notes.append(f"The CSV files name {len(classes)} classes, the whole data set has {_CLASSES[name]}.")
    return DataSet(name, tuple(lists), {LABELS_FILE: tuple(classes)}, notes=tuple(notes))


def _count_held_out(source: Path) -> int:
    """Return the number of clips of a CSV of test clips without the column label; 0 for any other CSV."""
    table = read_table(source, _COLUMNS[1:], _COLUMNS[:1])
    if table.place("label") is not None or {_SPLITS.get(_split(row)) for row in table.rows} != {"test"}:
        return 0
    return len(table.rows)


def _read_rows(source: Path) -> list[tuple[str, str, str]]:
    """Return (label, name without extension, split) of each clip."""
    rows: list[tuple[str, str, str]] = []
    for row in read_table(source, _COLUMNS).rows:
        label, video = (row.named[name].strip() for name in ("label", "youtube_id"))
        if not label or not video:
            raise ListError(f"{row.where}: needs a label and a youtube_id")
        split = _SPLITS.get(_split(row))
        if split is None:
            raise ListError(f"{row.where}: the split must be train, val or test, found {row.named['split']!r}")
        start, end = (whole_number(row.named[name], row.where, name) for name in ("time_start", "time_end"))
        rows.append((label, f"{video}_{start:06d}_{end:06d}", split))
    return rows


def _split(row: Row) -> str:
    return row.named["split"].strip().lower()


def _video_id(stem: str) -> str:
    # Identifiers may contain underscores.
    return stem.rsplit("_", 2)[0]
