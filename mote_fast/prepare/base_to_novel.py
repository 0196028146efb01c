"""Lists of the base-to-novel protocol: trained on a few videos of half of the classes, evaluated on both halves.

The protocol and the names of the files are those of ViFi-CLIP, whose published lists ``read_published`` reads. The
classes with fewer training videos are novel, the others base; each half numbers its classes from 0.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mote_fast.data.flip_labels import format_flip_labels, mirror_labels, one_sided
from mote_fast.data.items import VideoItem, check_items, check_one_label, read_labels, read_list
from mote_fast.errors import ConfigError, ListError
from mote_fast.evaluation.splits import Split
from mote_fast.prepare.fewshot import few_shot
from mote_fast.prepare.lists import format_labels, format_list
from mote_fast.prepare.prepare_settings import BASE_VAL, SEEDS, SHOTS
from mote_fast.prepare.tree import VideoTree

NOVEL_VAL = "novel_val.txt"
BASE_LABELS, NOVEL_LABELS = "base_labels.csv", "novel_labels.csv"
# Of the base classes, as they are trained.
FLIP_LABELS = "flip_labels.csv"


@dataclass(frozen=True)
class BaseToNovel:
    """The lists and class names of the protocol for one data set.

    Attributes:
        train: base videos to train on, by seed.
        base_val: base videos to evaluate on.
        novel_val: novel videos to evaluate on.
        base_names: base class names in index order.
        novel_names: novel class names in index order.
    """

    train: Mapping[int, Sequence[VideoItem]]
    base_val: Sequence[VideoItem]
    novel_val: Sequence[VideoItem]
    base_names: Sequence[str]
    novel_names: Sequence[str]

    def lists(self) -> dict[str, Sequence[VideoItem]]:
        """Return the lists by the names of their files."""
        train = {train_list_of(seed): items for seed, items in self.train.items()}
        return {**train, BASE_VAL: self.base_val, NOVEL_VAL: self.novel_val}

    def files(self) -> dict[str, str]:
        """Return the text of every file, by name: lists, class names, and labels of mirrored base videos.

        Raises:
            ListError: a list cannot hold a path, or a file of class names cannot hold a name.
        """
        flips = {**mirror_labels(self.base_names), **dict.fromkeys(one_sided(self.base_names))}
        names = {BASE_LABELS: format_labels(self.base_names), NOVEL_LABELS: format_labels(self.novel_names)}
        return {
            **{name: format_list(items) for name, items in self.lists().items()},
            **names,
            FLIP_LABELS: format_flip_labels(flips),
        }


def train_list_of(seed: int) -> str:
    """Return the name of a training list."""
    return f"fs_base_s{seed}_train.txt"


def split_base_novel(train: Split, val: Split, shots: int = SHOTS, seeds: Sequence[int] = SEEDS) -> BaseToNovel:
    """Split a data set's lists by the number of training videos of its classes.

    The half with fewer videos, rounded down, is novel; of classes with equally many, the first ones. Both halves number
    their classes by ascending number of videos. The draw of a seed is that of ``few_shot``, each video once.

    Args:
        train: the full training list.
        val: the full validation list, with the same class names.
        shots: training videos of each base class.
        seeds: one training list for each.

    Raises:
        ConfigError: ``shots`` is below 1, or a seed is given twice.
        ListError: there are fewer than two classes, a class has too few training videos, or a half no validation video.
    """
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds names a seed twice: {' '.join(map(str, seeds))}")
    classes = len(train.class_names)
    if classes < 2:
        raise ListError(f"{train.name}: {classes} class cannot be split into base and novel ones")
    counts = Counter(item.label for item in train.items)
    order = sorted(range(classes), key=lambda label: (counts[label], label))
    halves = order[classes // 2 :], order[: classes // 2]
    base, novel = ({label: number for number, label in enumerate(half)} for half in halves)
    missing = [train.class_names[label] for label in base if counts[label] < shots]
    if missing:
        raise ListError(f"{train.name}: the class {missing[0]!r} has fewer than {shots} training videos")
    base_train = _renumbered(train.items, base)
    return BaseToNovel(
        {seed: few_shot(base_train, shots, seed) for seed in seeds},
        _some(_renumbered(val.items, base), val.name, "base"),
        _some(_renumbered(val.items, novel), val.name, "novel"),
        [train.class_names[label] for label in base],
        [train.class_names[label] for label in novel],
    )


def read_published(
    folder: str | os.PathLike[str],
    base_labels: str | os.PathLike[str],
    novel_labels: str | os.PathLike[str],
    root: str | os.PathLike[str],
    seeds: Sequence[int] = SEEDS,
) -> tuple[BaseToNovel, list[str]]:
    """Read published lists, whose videos lie anywhere below ``root``, in any container, with capitals or without.

    Args:
        folder: folder of ``base_val.txt``, ``novel_val.txt`` and ``fs_base_s1_train.txt`` and so on.
        base_labels: file of the base class names, see ``read_labels``.
        novel_labels: file of the novel class names.
        root: folder of the videos.
        seeds: the training lists to read.

    Returns:
        The lists with paths relative to ``root``, and the videos that were not found; they stay as published.

    Raises:
        ListError: a file is missing or malformed, a label has no class name, or ``root`` holds no videos.
    """
    tree, missing = VideoTree(root, ignore_case=True), dict[str, None]()
    base_names, novel_names = read_labels(base_labels), read_labels(novel_labels)

    def read(name: str, classes: int) -> list[VideoItem]:
        items = read_list(Path(folder) / name)
        check_items(items, classes, name)
        check_one_label(items, name, "the protocol needs one for each video")
        return [_found(item, tree, missing) for item in items]

    lists = BaseToNovel(
        {seed: read(train_list_of(seed), len(base_names)) for seed in seeds},
        read(BASE_VAL, len(base_names)),
        read(NOVEL_VAL, len(novel_names)),
        base_names,
        novel_names,
    )
    return lists, list(missing)


def _found(item: VideoItem, tree: VideoTree, missing: dict[str, None]) -> VideoItem:
    listed = PurePosixPath(item.path)
    path = tree.find(listed.stem, *listed.parts[:-1])
    if path is None:
        missing[item.path] = None
        return item
    return replace(item, path=path)


def _renumbered(items: Sequence[VideoItem], numbers: Mapping[int, int]) -> list[VideoItem]:
    return [replace(item, label=numbers[item.label]) for item in items if item.label in numbers]


def _some(items: list[VideoItem], name: str, half: str) -> list[VideoItem]:
    if not items:
        raise ListError(f"{name}: has no video of the {half} classes")
    return items
