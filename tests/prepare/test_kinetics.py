"""Kinetics from its official CSV files."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mote_fast.data.items import VideoItem
from mote_fast.errors import ListError
from mote_fast.prepare.k600_zero_shot import new_classes, zero_shot_splits
from mote_fast.prepare.kinetics import read_k400, read_k600, read_k700
from mote_fast.prepare.lists import LABELS_FILE
from tests.prepare.conftest import touch, write

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"


def write_csv(path: Path, rows: list[tuple[str, str, int, int, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("label", "youtube_id", "time_start", "time_end", "split"))
        writer.writerows(rows)
    return path


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """The CSV files as published, with the release's quotes and extra columns."""
    folder = tmp_path / "annotations"
    write(
        folder / "train.csv",
        HEADER
        + "arm wrestling,---QUuC4vJs,84,94,train,0\n"
        + '"passing American football (in game)",_aB_3dE_f-9,7,17,train,0\n',
    )
    write(folder / "validate.csv", HEADER + '"massaging person\'s head",-3B32lodo2M,1059,1069,validate,0\n')
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return touch(
        tmp_path / "videos",
        "train/arm wrestling/---QUuC4vJs_000084_000094.mp4",
        "val/massaging_person's_head/-3B32lodo2M_001059_001069.mkv",
        "val/other/---QUuC4vJs_000084_000094.mp4",
    )


def test_lists_and_labels(annotations: Path, root: Path) -> None:
    """Clips are found by identifier and seconds, in folders with spaces or underscores; missing ones are listed."""
    data_set = read_k400([annotations], root)
    lists = {each.name: each.items for each in data_set.lists}
    assert lists == {
        "trainlist.txt": (
            VideoItem("train/arm wrestling/---QUuC4vJs_000084_000094.mp4", 0),
            VideoItem("passing_American_football_(in_game)/_aB_3dE_f-9_000007_000017.mp4", 2),
        ),
        "vallist.txt": (VideoItem("val/massaging_person's_head/-3B32lodo2M_001059_001069.mkv", 1),),
    }
    assert data_set.labels[LABELS_FILE] == (
        "arm wrestling",
        "massaging person's head",
        "passing American football (in game)",
    )
    assert "3 classes" in data_set.notes[0]


def test_clips_named_by_identifier_alone(annotations: Path, tmp_path: Path) -> None:
    """Some crawls omit the seconds; identifiers may contain underscores."""
    root = touch(tmp_path / "flat", "_aB_3dE_f-9.mp4")
    lists = {each.name: each.items for each in read_k400([annotations], root).lists}
    assert lists["trainlist.txt"][1] == VideoItem("_aB_3dE_f-9.mp4", 2)


def test_single_files_can_be_named(annotations: Path, root: Path) -> None:
    """One CSV is enough."""
    data_set = read_k400([annotations / "validate.csv"], root)
    assert [each.name for each in data_set.lists] == ["vallist.txt"]


@pytest.mark.parametrize("name", ["k400", "k600"])
def test_labels_are_those_of_the_data_set(name: str, labels_dir: Path, root: Path, tmp_path: Path) -> None:
    """All classes get the indices of the data set's list of classes, for any order of rows."""
    names = [line for line in (labels_dir / f"{name}.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = [(label, f"id{at}", 0, 10, "test") for at, label in enumerate(reversed(names))]
    read = {"k400": read_k400, "k600": read_k600}[name]
    data_set = read([write_csv(tmp_path / "a" / "test.csv", rows)], root)
    assert list(data_set.labels[LABELS_FILE]) == names
    assert data_set.notes == ()


def test_k700(annotations: Path, root: Path, tmp_path: Path) -> None:
    """The releases hold the labels of the test clips out: these are counted, and the other lists are unchanged."""
    write(annotations / "test.csv", "youtube_id,time_start,time_end,split\nxyz,1,11,test\nzyx,1,11,test\n")
    data_set = read_k700([annotations], root)
    assert data_set.name == "k700"
    assert data_set.lists == read_k400([annotations / "train.csv", annotations / "validate.csv"], root).lists
    assert data_set.notes[0] == "test.csv states no labels, so its 2 test clips are in no list."
    assert "the whole data set has 700" in data_set.notes[1]
    with pytest.raises(ListError, match="no CSV states labels"):
        read_k700([annotations / "test.csv"], root)
    labelled = write_csv(tmp_path / "all.csv", [(f"class {at:03}", f"id{at}", 0, 10, "test") for at in range(700)])
    assert (read_k700([labelled], root).notes, len(read_k700([labelled], root).lists)) == ((), 1)


def test_labels_missing_from_other_splits(root: Path, tmp_path: Path) -> None:
    """Only test clips may lack the column; one training clip among them makes it an error."""
    rows = "youtube_id,time_start,time_end,split\nxyz,1,11,test\nzyx,1,11,train\n"
    with pytest.raises(ListError, match=r"lacks the columns \['label'\]"):
        read_k700([write(tmp_path / "bad.csv", rows)], root)


def test_zero_shot_classes(labels_dir: Path) -> None:
    """The 220 classes are in Kinetics-600, not in Kinetics-400; each split has 160 different ones."""
    k400, k600 = (
        set((labels_dir / f"{name}.txt").read_text(encoding="utf-8").splitlines()) for name in ("k400", "k600")
    )
    assert len(new_classes()) == 220
    assert set(new_classes()) <= k600 - k400
    assert len(k600 - k400) - 220 == 12
    splits = zero_shot_splits()
    assert [len(set(split)) for split in splits] == [160, 160, 160]
    assert all(set(split) <= set(new_classes()) for split in splits)
    assert len(set(splits)) == 3


def test_zero_shot_splits_are_the_published_ones() -> None:
    """The names at some labels equal those of the released lists."""
    first, second, third = zero_shot_splits()
    assert first[:4] == ("acting in play", "adjusting glasses", "arguing", "attending conference")
    assert (first[101], first[159]) == ("preparing salad", "yarn spinning")
    assert (second[2], second[155], second[159]) == ("assembling bicycle", "wading through mud", "winking")
    assert (third[0], third[157], third[159]) == ("adjusting glasses", "weaving fabric", "wood burning (art)")


def test_zero_shot_lists(root: Path, tmp_path: Path) -> None:
    """Besides the lists of all 600 classes, each split has a list of its classes' test videos and own labels."""
    classes = (*new_classes(), "abseiling")
    rows = [(label, f"id{at}", 0, 10, "test") for at, label in enumerate(classes)]
    rows += [(label, f"train{at}", 0, 10, "train") for at, label in enumerate(classes)]
    data_set = read_k600([write_csv(tmp_path / "a" / "all.csv", rows)], root)
    lists = {each.name: each for each in data_set.lists}
    assert list(lists) == ["trainlist.txt", "testlist.txt", *(f"k160_test_split{split}.txt" for split in (1, 2, 3))]
    for number, names in enumerate(zero_shot_splits(), 1):
        chosen = lists[f"k160_test_split{number}.txt"]
        assert data_set.labels[chosen.labels] == names
        assert [item.label for item in chosen.items] == list(range(160))
        for item, name in zip(chosen.items, names, strict=True):
            assert item.path.startswith(name.replace(" ", "_") + "/id")


def test_zero_shot_lists_of_part_of_the_data(annotations: Path, root: Path, tmp_path: Path) -> None:
    """Without test videos there are no such lists; missing classes are noted."""
    data_set = read_k600([annotations], root)
    assert [each.name for each in data_set.lists] == ["trainlist.txt", "vallist.txt"]
    assert "no CSV has test videos" in data_set.notes[-1].replace("No", "no")
    some = write_csv(tmp_path / "a" / "test.csv", [("yarn spinning", "abc", 0, 10, "test")])
    data_set = read_k600([some], root)
    assert data_set.lists[1].items == (VideoItem("yarn_spinning/abc_000000_000010.mp4", 159),)
    assert any("159 of 160 classes" in note for note in data_set.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("youtube_id,time_start,time_end,split\na,1,2,train\n", r"lacks the columns \['label'\]"),
        (HEADER + "a,b,1,2,train,0\n,b,1,2,train,0\n", r"bad\.csv:3: needs a label"),
        (HEADER + "a,b,1,2,holdout,0\n", r"bad\.csv:2: the split must be train, val or test, found 'holdout'"),
        (HEADER + "a,b,one,2,train,0\n", r"bad\.csv:2: time_start must be an integer"),
        (HEADER + "a,b,1\n", r"bad\.csv:2"),
    ],
)
def test_malformed_annotations(root: Path, tmp_path: Path, text: str, message: str) -> None:
    """Errors name file and line."""
    with pytest.raises(ListError, match=message):
        read_k400([write(tmp_path / "bad.csv", text)], root)


def test_no_annotations(root: Path) -> None:
    """The error names a folder without CSV files."""
    with pytest.raises(ListError, match=r"no file named \*\.csv"):
        read_k400([root], root)
