"""UCF-101 from ``ucfTrainTestlist``: classInd.txt, trainlist01..03.txt and testlist01..03.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from mote_fast.data.items import VideoItem
from mote_fast.data.text_tables import whole_number
from mote_fast.errors import ListError
from mote_fast.prepare.annotations import find_file, rows_of
from mote_fast.prepare.lists import LABELS_FILE, DataSet, VideoList, split_camel_case
from mote_fast.prepare.tree import VideoTree

SPLITS = (1, 2, 3)

# Names that are one word in the released label file, in spite of their capitals.
_ONE_WORD = frozenset({"YoYo"})


def read_ucf101(annotations: Sequence[Path], root: Path) -> DataSet:
    """Read the three official splits; class indices are those of classInd.txt minus 1, as in the released lists.

    Raises:
        ListError: an annotation file is missing or malformed, or two files contradict each other.
    """
    classes = _read_classes(find_file(annotations, "classInd.txt"))
    # Lists have v_HandStandPushups_*, some archives v_HandstandPushups_*.
    tree = VideoTree(root, ignore_case=True)
    lists: list[VideoList] = []
    for split in SPLITS:
        for ours, theirs in (("train", "train"), ("val", "test")):
            source = find_file(annotations, f"{theirs}list{split:02d}.txt")
            lists.append(VideoList(f"{ours}list_split{split}.txt", _read_split(source, classes, tree)))
    names = tuple(name if name in _ONE_WORD else split_camel_case(name) for name in classes)
    return DataSet("ucf101", tuple(lists), {LABELS_FILE: names})


def _read_classes(source: Path) -> list[str]:
    numbered: dict[int, str] = {}
    for where, (number, name) in rows_of(source, 2):
        index = whole_number(number, where, "the class number") - 1
        if index in numbered:
            raise ListError(f"{where}: class number {number} is given twice")
        numbered[index] = name
    if not numbered or sorted(numbered) != list(range(len(numbered))):
        raise ListError(f"{source}: class numbers must be 1 to {len(numbered)}, each once")
    return [numbered[index] for index in range(len(numbered))]


def _read_split(source: Path, classes: list[str], tree: VideoTree) -> tuple[VideoItem, ...]:
    indices = {name: index for index, name in enumerate(classes)}
    items: list[VideoItem] = []
    for where, (line,) in rows_of(source, 1):
        # Only training lists have the class number after the path; no path of UCF-101 contains a space.
        path, *number = line.split()
        name = PurePosixPath(path).parent.name
        if name not in indices:
            raise ListError(f"{where}: {name!r} is not a class of classInd.txt")
        label = indices[name]
        if number and whole_number(number[0], where, "the class number") - 1 != label:
            raise ListError(f"{where}: class number {number[0]} is not that of {name} ({label + 1})")
        items.append(VideoItem(tree.find(PurePosixPath(path).stem, name) or path, label))
    return tuple(items)
