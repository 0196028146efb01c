"""Training and validation lists from videos whose classes have names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

from mote_fast.data.flip_labels import mirror_labels, one_sided
from mote_fast.data.items import VideoItem
from mote_fast.errors import ConfigError
from mote_fast.prepare.lists import LABELS_FILE, DataSet, VideoList
from mote_fast.runtime.seeding import generator_of
from mote_fast.runtime.text import underscores_to_spaces

# Names of the parts of a data set that is split already, in small letters.
TRAIN_NAMES = frozenset({"train", "training"})
VAL_NAMES = frozenset({"val", "valid", "validation", "test"})

# Without a share of the user's: this one; of small classes more, up to a quarter, until there are ten videos.
VAL_SHARE = 0.1
SMALL_VAL_SHARE = 0.25
VAL_VIDEOS = 10


def check_share(val_share: float | None) -> None:
    """Raise ``ConfigError`` if a share for validation is not in [0, 1)."""
    if val_share is not None and not 0 <= val_share < 1:
        raise ConfigError(f"--val-share must be at least 0 and below 1, got {val_share}")


def split_classes(
    name: str, items: Sequence[VideoItem], names: Sequence[str], val_share: float | None, seed: int
) -> DataSet:
    """Split videos by class; the choice depends on (seed, class) and the paths alone.

    Args:
        name: name of the data set.
        items: the videos.
        names: names of the classes in index order, as their source has them.
        val_share: share of each class for validation, rounded, at least one video of a class with two or more, and
            never the whole class. None takes a tenth, and of classes of under 100 videos up to ten videos, at most a
            quarter; a note says what that came to.
        seed: seed of the choice.
    """
    train, val = _split(items, names, val_share, seed)
    note = _split_note(train, val) if val_share is None and val else ()
    return data_set_of(name, {"train": train, "val": val}, names, note)


def _split(
    items: Sequence[VideoItem], names: Sequence[str], val_share: float | None, seed: int
) -> tuple[list[VideoItem], list[VideoItem]]:
    by_label: defaultdict[int, list[VideoItem]] = defaultdict(list)
    for item in items:
        by_label[item.label].append(item)
    train: list[VideoItem] = []
    val: list[VideoItem] = []
    for label, videos in by_label.items():
        count = min(_val_videos(len(videos), val_share), len(videos) - 1)
        order = torch.randperm(len(videos), generator=generator_of(seed, "val", names[label])).tolist()
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


def data_set_of(
    name: str, lists: Mapping[str, Sequence[VideoItem]], classes: Sequence[str], notes: tuple[str, ...]
) -> DataSet:
    """Return the data set of lists that are split; classes that name a side get labels of mirrored videos.

    Args:
        name: name of the data set.
        lists: videos by part, "train" and "val".
        classes: names in index order; underscores become spaces.
        notes: see ``DataSet``.
    """
    lists_of_parts = tuple(VideoList(f"{which}list.txt", tuple(items)) for which, items in lists.items() if items)
    names = tuple(map(underscores_to_spaces, classes))
    kept = one_sided(names)
    if kept:
        listed = ", ".join(names[label] for label in kept)
        notes += (f"Training mirrors no videos of classes whose mirror image is no class ({len(kept)}): {listed}.",)
    flips = mirror_labels(names) | dict.fromkeys(kept)
    return DataSet(name, lists_of_parts, {LABELS_FILE: names}, flips, notes)
