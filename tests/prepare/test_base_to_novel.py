"""Base and novel classes: which half a class belongs to, the draws, and published lists."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mote_fast.data.flip_labels import read_flip_labels
from mote_fast.data.items import VideoItem, read_labels, read_list
from mote_fast.errors import ConfigError, ListError
from mote_fast.evaluation.splits import Split
from mote_fast.prepare.base_to_novel import read_published, split_base_novel

NAMES = ["many", "turn left", "few", "turn right", "some"]
COUNTS = (9, 5, 2, 5, 4)


def listed(name: str, counts: tuple[int, ...] = COUNTS) -> Split:
    """A list with so many videos of each class."""
    items = [VideoItem(f"{name}/{label}_{at}.mp4", label) for label, count in enumerate(counts) for at in range(count)]
    return Split(name, items, NAMES)


def test_rare_classes_are_novel(tmp_path: Path) -> None:
    """Three of five are base, in ascending order of size; every video of a list has its class's new number."""
    found = split_base_novel(listed("train"), listed("val", (1, 1, 1, 1, 1)), shots=4, seeds=(1, 7))
    assert found.novel_names == ["few", "some"]
    assert found.base_names == ["turn left", "turn right", "many"]
    assert [(item.path, item.label) for item in found.novel_val] == [("val/2_0.mp4", 0), ("val/4_0.mp4", 1)]
    for items in found.train.values():
        assert Counter(item.label for item in items) == {0: 4, 1: 4, 2: 4}
        assert all(NAMES.index(found.base_names[item.label]) == int(item.path[6]) for item in items)
        assert len({item.path for item in items}) == 12
    assert found.train[1] != found.train[7]
    for name, text in found.files().items():
        (tmp_path / name).write_text(text)
    assert read_list(tmp_path / "fs_base_s7_train.txt") == found.train[7]
    assert read_labels(tmp_path / "novel_labels.csv") == found.novel_names
    assert read_flip_labels(tmp_path / "flip_labels.csv") == {0: 1, 1: 0}


def test_impossible_splits_are_refused() -> None:
    """The message names the class, the list or the option."""
    train = listed("train")
    with pytest.raises(ListError, match="the class 'turn left' has fewer than 6"):
        split_base_novel(train, train, shots=6)
    with pytest.raises(ListError, match="val: has no video of the novel classes"):
        split_base_novel(train, listed("val", (1, 1, 0, 1, 0)), shots=1)
    with pytest.raises(ConfigError, match="seed twice"):
        split_base_novel(train, train, shots=1, seeds=(1, 1))
    with pytest.raises(ConfigError, match="at least 1"):
        split_base_novel(train, train, shots=0)
    with pytest.raises(ListError, match="1 class cannot"):
        split_base_novel(Split("one", train.items[:1], ["many"]), train)


def test_published_lists(tmp_path: Path) -> None:
    """Names without folders, CRLF, other containers: found where the videos are; a missing one stays and is named."""
    for name, text in {
        "fs_base_s1_train.txt": "v_A_g01.avi 0\r\nv_B_g01.avi 1\r\n",
        "base_val.txt": "v_A_g02.avi 0\nval/gone.avi 1\n",
        "novel_val.txt": "v_C_g01.avi 0\n",
        "base.csv": "id,name\r\n0,A\r\n1,B\r\n",
        "novel.csv": "id,name\n0,C\n",
    }.items():
        (tmp_path / name).write_bytes(text.encode())
    for path in ("A/v_A_g01.mp4", "A/v_A_g02.avi", "B/v_B_g01.avi", "C/v_C_g01.avi"):
        (tmp_path / "videos" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / path).touch()
    paths = (tmp_path, tmp_path / "base.csv", tmp_path / "novel.csv", tmp_path / "videos")
    found, missing = read_published(*paths, seeds=(1,))
    assert [item.path for item in found.train[1]] == ["A/v_A_g01.mp4", "B/v_B_g01.avi"]
    assert [item.path for item in found.base_val] == ["A/v_A_g02.avi", "val/gone.avi"]
    assert missing == ["val/gone.avi"]
    assert (found.base_names, found.novel_names) == (["A", "B"], ["C"])
    with pytest.raises(ListError, match="fs_base_s2_train"):
        read_published(*paths, seeds=(2,))
    (tmp_path / "novel_val.txt").write_text("v_C_g01.avi 1\n")
    with pytest.raises(ListError, match="label 1, but there are 1 class"):
        read_published(*paths, seeds=(1,))
