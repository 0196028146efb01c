"""The lists of an evaluation: one, or several splits; videos that splits share are read and encoded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mote_fast.data.items import (
    UNLABELLED,
    VideoItem,
    check_items,
    check_one_label,
    read_labels,
    read_list,
    scan_folder,
)
from mote_fast.errors import ListError
from mote_fast.runtime.text import plain, underscores_to_spaces


@dataclass(frozen=True)
class Split:
    """Videos and class names; the videos' labels are indices into the names."""

    name: str
    items: Sequence[VideoItem]
    class_names: Sequence[str]

    @property
    def several_labels(self) -> bool:
        """Whether a video has several labels."""
        return any(item.others for item in self.items)


@dataclass(frozen=True)
class Membership:
    """A split's place in a ``VideoPool``: the label set, and int64 [n], positions of its videos in the pool."""

    label_set: int
    positions: Tensor


@dataclass(frozen=True)
class VideoPool:
    """The videos of all splits, each once.

    Attributes:
        items: the P videos. Their ``label`` is that of the first split that lists them; ``labels`` has all.
        class_names: the distinct label sets of the splits.
        labels: for each label set int64 [P], each video's class, or ``UNLABELLED`` if no split with these names lists
            it; of several, the first.
        memberships: one per split, in the same order.
    """

    items: list[VideoItem]
    class_names: list[tuple[str, ...]]
    labels: list[Tensor]
    memberships: list[Membership]


def read_split(
    source: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None,
    root: str | os.PathLike[str] = "",
    *,
    several_labels: bool = False,
) -> Split:
    """Read one split; its name is the list's, without the suffix.

    Args:
        source: a list file (``read_list``), or a folder with a sub-folder for each class (``scan_folder``).
        labels: file of class names (``read_labels``); optional for a folder, whose names are those of its folders, with
            spaces in place of underscores, as ``mote-fast prepare folder`` writes them. Names that are those of the
            folders, except for case, spaces and punctuation, number the folders; other names are taken in the order
            of the folders.
        root: folder that a list file's paths are relative to.
        several_labels: whether videos may have several labels.

    Raises:
        ListError: a file is missing or malformed, a list comes without names, a label has none, or a video has several
            labels that are not allowed.
    """
    path = Path(source)
    names = None if labels is None else read_labels(labels)
    if path.is_dir():
        items, folders = scan_folder(path)
        if names is not None and len(names) != len(folders):
            raise ListError(f"{labels}: has {len(names)} names, but {path} has {len(folders)} class folders")
        if names is not None:
            items = _renumber(items, folders, names)
        names = [*map(underscores_to_spaces, folders)] if names is None else names
    elif names is None:
        raise ListError(f"{path}: a list needs the file of its class names; give --labels-file")
    else:
        items = read_list(path, root)
    check_items(items, len(names), str(path))
    if not several_labels:
        check_one_label(items, str(path), "mote-fast eval measures such lists, by average precision")
    return Split(path.name if path.is_dir() else path.stem, items, names)


def _renumber(items: Sequence[VideoItem], folders: Sequence[str], names: Sequence[str]) -> list[VideoItem]:
    """Give the videos of class folders the class numbers of a file that names the folders in another order."""
    number_of = {plain(name): label for label, name in enumerate(names)}
    numbers = [number_of.get(plain(folder)) for folder in folders]
    if len(set(numbers) - {None}) < len(names):
        return list(items)
    return [replace(item, label=numbers[item.label]) for item in items]


def mix_splits(splits: Sequence[Split]) -> list[Split]:
    """Return the splits with the classes of all of them as candidates.

    Names that differ only in case, spaces and punctuation are one class, unless one list has both.
    """
    numbers: dict[str, int] = {}
    names: list[str] = []
    mixed: list[Split] = []
    for split in splits:
        folded = [plain(name) for name in split.class_names]
        keys = [
            key if key and folded.count(key) == 1 else name for key, name in zip(folded, split.class_names, strict=True)
        ]
        for key, name in zip(keys, split.class_names, strict=True):
            if key not in numbers:
                numbers[key] = len(names)
                names.append(name)
        items = [replace(item, label=numbers[keys[item.label]]) for item in split.items]
        # The list of names is complete after the last split.
        mixed.append(Split(f"{split.name}, mixed", items, names))
    return mixed


def pool_splits(splits: Sequence[Split]) -> VideoPool:
    """Collect the videos of all splits, each once, even if several splits list it.

    Raises:
        ListError: a video is listed twice with different classes of the same label set.
    """
    items: list[VideoItem] = []
    at: dict[str, int] = {}
    labels_of: dict[tuple[int, str], frozenset[int]] = {}
    for split in splits:
        for item in split.items:
            if item.path not in at:
                at[item.path] = len(items)
                items.append(item)
    class_names = list(dict.fromkeys(tuple(split.class_names) for split in splits))
    labels = [[UNLABELLED] * len(items) for _ in class_names]
    memberships: list[Membership] = []
    for split in splits:
        label_set = class_names.index(tuple(split.class_names))
        known = labels[label_set]
        for item in split.items:
            position, labels_here = at[item.path], frozenset(item.labels)
            if labels_of.setdefault((label_set, item.path), labels_here) != labels_here:
                elsewhere = ",".join(map(str, sorted(labels_of[label_set, item.path])))
                raise ListError(
                    f"{split.name}: {item.path} has label {','.join(map(str, item.labels))[:80]} here and "
                    f"{elsewhere[:80]} elsewhere; a video has one class, or all of its classes in one line"
                )
            known[position] = item.label
        memberships.append(Membership(label_set, torch.tensor([at[item.path] for item in split.items])))
    return VideoPool(items, class_names, [torch.tensor(each) for each in labels], memberships)
