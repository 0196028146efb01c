"""Training and validation lists from a folder per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mote_fast.data.items import VideoItem, scan_folder
from mote_fast.errors import ListError
from mote_fast.prepare.class_lists import TRAIN_NAMES, VAL_NAMES, check_share, data_set_of, split_classes
from mote_fast.prepare.lists import DataSet
from mote_fast.runtime.text import is_text


def read_folder(root: Path, *, val_share: float | None = None, seed: int = 0) -> DataSet:
    """List the videos under ``root``: ``root/CLASS/...``, or ``root/train/CLASS/...`` and ``root/val/CLASS/...``.

    The second form applies if the only folders are one of ``TRAIN_NAMES`` and one of ``VAL_NAMES``. In the first
    form, ``val_share`` of each class goes to the validation list, see ``split_classes``. Underscores in the names of
    class folders become spaces in class names. Classes that name a side get labels of mirrored videos.

    Raises:
        ConfigError: ``val_share`` is not in [0, 1).
        ListError: the folder is missing, holds no class folder with a video, or one whose name is not UTF-8.
    """
    check_share(val_share)
    parts = _parts(root)
    if parts is None:
        found, folders = scan_folder(root)
        _check_names(root, folders)
        items = [VideoItem(os.path.relpath(item.path, root), item.label) for item in found]
        return split_classes("folder", items, folders, val_share, seed)
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
    return data_set_of("folder", lists, folders, tuple(notes))


def _parts(root: Path) -> dict[str, Path] | None:
    if not root.is_dir():
        raise ListError(f"{root}: no such folder; give --root one with a sub-folder for each class")
    try:
        folders = {
            child.name.lower(): child for child in root.iterdir() if child.is_dir() and not child.name.startswith(".")
        }
    except OSError as error:
        raise ListError(f"{root}: cannot be read ({error.strerror})") from error
    train, val = folders.keys() & TRAIN_NAMES, folders.keys() & VAL_NAMES
    if len(folders) != 2 or len(train) != 1 or len(val) != 1:
        return None
    return {"train": folders[train.pop()], "val": folders[val.pop()]}


def _check_names(root: Path, folders: Sequence[str]) -> None:
    for name in folders:
        # Left out, the class would shift the numbers of all later ones.
        if not is_text(name):
            raise ListError(f"{root}: the class folder {name!r} has a name that is not valid UTF-8; rename it")
