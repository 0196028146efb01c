"""Training and validation lists from a folder per class."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from mote_fast.data.flip_labels import mirror_labels, one_sided
from mote_fast.data.items import VideoItem, scan_folder
from mote_fast.errors import ConfigError, ListError
from mote_fast.prepare.lists import LABELS_FILE, DataSet, VideoList, underscores_to_spaces
from mote_fast.runtime.seeding import generator_of
from mote_fast.runtime.text import is_text

TRAIN_FOLDERS = frozenset({"train", "training"})
VAL_FOLDERS = frozenset({"val", "valid", "validation", "test"})


# Without a share of the user's: this one; of small classes more, up to a quarter, until there are ten videos.
VAL_SHARE = 0.1
SMALL_VAL_SHARE = 0.25
VAL_VIDEOS = 10


def read_folder(root: Path, *, val_share: float | None = None, seed: int = 0) -> DataSet:
    """List the videos under ``root``: ``root/CLASS/...``, or ``root/train/CLASS/...`` and ``root/val/CLASS/...``.

    The second form applies if the only folders are one of ``TRAIN_FOLDERS`` and one of ``VAL_FOLDERS``. In the first
    form, ``val_share`` of each class goes to the validation list, rounded, at least one video of a class with two or
    more, and never the whole class. None takes a tenth, and of classes of under 100 videos up to ten videos, at most a
    quarter; a note says what that came to. The choice depends on (seed, class) and the paths alone. Underscores in the
    names of class folders become spaces in class names. Classes that name a side get labels of mirrored videos.

    Raises:
        ConfigError: ``val_share`` is not in [0, 1).
        ListError: the folder is missing, holds no class folder with a video, or one whose name is not UTF-8.
    """
    if val_share is not None and not 0 <= val_share < 1:
        raise ConfigError(f"--val-share must be at least 0 and below 1, got {val_share}")
    parts = _parts(root)
    if parts is None:
        found, folders = scan_folder(root)
        _check_names(root, folders)
        items = [VideoItem(os.path.relpath(item.path, root), item.label) for item in found]
        train, val = _split(items, folders, val_share, seed)
        note = _split_note(train, val) if val_share is None and val else ()
        return _data_set({"train": train, "val": val}, folders, note)
    scanned = {which: scan_folder(folder) for which, folder in parts.items()}
    folders = sorted({name for _, names in scanned.values() for name in names})
    _check_names(root, folders)
    indices = {name: index for index, name in enumerate(folders)}
    lists = {
        which: [VideoItem(os.path.relpath(item.path, root), indices[names[item.label]]) for item in items]
        for which, (items, names) in scanned.items()
    }
    notes: list[str] = []
    for which, (_, names) in scanned.items():
        absent = [name for name in folders if name not in names]
        if absent:
            notes.append(f"The {which} part has no videos of {len(absent)} classes: {', '.join(absent)}.")
    return _data_set(lists, folders, tuple(notes))


def _parts(root: Path) -> dict[str, Path] | None:
    if not root.is_dir():
        raise ListError(f"{root}: no such folder; give --root one with a sub-folder for each class")
    try:
        folders = {
            child.name.lower(): child for child in root.iterdir() if child.is_dir() and not child.name.startswith(".")
        }
    except OSError as error:
        raise ListError(f"{root}: cannot be read ({error.strerror})") from error
    train, val = folders.keys() & TRAIN_FOLDERS, folders.keys() & VAL_FOLDERS
    if len(folders) != 2 or len(train) != 1 or len(val) != 1:
        return None
    return {"train": folders[train.pop()], "val": folders[val.pop()]}


def _check_names(root: Path, folders: Sequence[str]) -> None:
    for name in folders:
        # Left out, the class would shift the numbers of all later ones.
        if not is_text(name):
            raise ListError(f"{root}: the class folder {name!r} has a name that is not valid UTF-8; rename it")


def _split(
    items: list[VideoItem], folders: list[str], val_share: float | None, seed: int
) -> tuple[list[VideoItem], list[VideoItem]]:
    by_label: defaultdict[int, list[VideoItem]] = defaultdict(list)
    for item in items:
        by_label[item.label].append(item)
    train: list[VideoItem] = []
    val: list[VideoItem] = []
    for label, videos in by_label.items():
        count = min(_val_videos(len(videos), val_share), len(videos) - 1)
        order = torch.randperm(len(videos), generator=generator_of(seed, "val", folders[label])).tolist()
        chosen = set(order[:count])
        for index, item in enumerate(videos):
            (val if index in chosen else train).append(item)
    return train, val


def _val_videos(videos: int, share: float | None) -> int:
    if share is not None:
        return max(round(share * videos), int(share > 0))
    return max(round(VAL_SHARE * videos), min(round(SMALL_VAL_SHARE * videos), VAL_VIDEOS), 1)


def _split_note(train: Sequence[VideoItem], val: Sequence[VideoItem]) -> tuple[str]:
    videos = len(train) + len(val)
    return (
        f"{len(val)} of {videos} videos ({len(val) / videos:.0%}) are for validation, drawn from each class; another "
        "--val-share, or folders train and val, split them otherwise.",
    )


def _data_set(lists: dict[str, list[VideoItem]], folders: list[str], notes: tuple[str, ...]) -> DataSet:
    lists_of_parts = tuple(VideoList(f"{which}list.txt", tuple(items)) for which, items in lists.items() if items)
    names = tuple(map(underscores_to_spaces, folders))
    kept = one_sided(names)
    if kept:
        listed = ", ".join(names[label] for label in kept)
        notes += (f"Training mirrors no videos of {len(kept)} classes whose mirror image is no class: {listed}.",)
    flips = mirror_labels(names) | dict.fromkeys(kept)
    return DataSet("folder", lists_of_parts, {LABELS_FILE: names}, flips, notes)
