"""HMDB-51 from ``CLASS_test_split1..3.txt``: lines of video and flag, 1 for training, 2 for test, 0 for unused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from mote_fast.data.items import VideoItem
from mote_fast.errors import ListError
from mote_fast.prepare.annotations import find_files, rows_of
from mote_fast.prepare.lists import LABELS_FILE, DataSet, VideoList
from mote_fast.prepare.tree import VideoTree
from mote_fast.runtime.text import underscores_to_spaces

SPLITS = (1, 2, 3)

_PATTERN = "*_test_split[123].txt"
_LISTS = {"1": "train", "2": "val"}
_UNUSED = "0"


def read_hmdb51(annotations: Sequence[Path], root: Path) -> DataSet:
    """Read the three official splits; classes are numbered by name, as in the released lists.

    Raises:
        ListError: an annotation file is missing, malformed or duplicated.
    """
    sources = _find_sources(annotations)
    classes = sorted({name for name, _ in sources})
    tree = VideoTree(root)
    lists: list[VideoList] = []
    for split in SPLITS:
        items: dict[str, list[VideoItem]] = {"train": [], "val": []}
        for label, name in enumerate(classes):
            for which, path in _read_class(sources[name, split], name, tree):
                items[which].append(VideoItem(path, label))
        lists += [VideoList(f"{which}list_split{split}.txt", tuple(items[which])) for which in ("train", "val")]
    return DataSet("hmdb51", tuple(lists), {LABELS_FILE: tuple(map(underscores_to_spaces, classes))})


def _find_sources(annotations: Sequence[Path]) -> dict[tuple[str, int], Path]:
    """Map (class, split) to its file, and check that none is missing."""
    sources: dict[tuple[str, int], Path] = {}
    for source in find_files(annotations, _PATTERN):
        name, split = source.stem.rsplit("_test_split", 1)
        if (name, int(split)) in sources:
            raise ListError(f"{sources[name, int(split)]} and {source} are both there; remove one")
        sources[name, int(split)] = source
    for name, split in list(sources):
        for other in SPLITS:
            if (name, other) not in sources:
                raise ListError(f"{sources[name, split].parent}: {name}_test_split{other}.txt is missing")
    return sources


def _read_class(source: Path, name: str, tree: VideoTree) -> list[tuple[str, str]]:
    """Return pairs of a list ("train" or "val") and a path."""
    pairs: list[tuple[str, str]] = []
    for where, (video, flag) in rows_of(source, 2):
        if flag == _UNUSED:
            continue
        if flag not in _LISTS:
            raise ListError(f"{where}: the flag must be 0, 1 or 2, found {flag!r}")
        pairs.append((_LISTS[flag], tree.find(PurePosixPath(video).stem, name) or f"{name}/{video}"))
    return pairs
