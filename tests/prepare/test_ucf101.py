"""UCF-101 from its official annotation files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote_fast.data.items import VideoItem
from mote_fast.errors import ListError
from mote_fast.prepare.lists import LABELS_FILE
from mote_fast.prepare.ucf101 import read_ucf101
from tests.prepare.conftest import touch, write

CLASSES = ("ApplyEyeMakeup", "HandstandPushups", "YoYo")


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """The files of ucfTrainTestlist, with the archive's line ends."""
    folder = tmp_path / "annotations" / "ucfTrainTestlist"
    write(folder / "classInd.txt", "".join(f"{at} {name}\r\n" for at, name in enumerate(CLASSES, 1)))
    for split in (1, 2, 3):
        train = f"ApplyEyeMakeup/v_ApplyEyeMakeup_g0{split}_c01.avi 1\r\nYoYo/v_YoYo_g0{split}_c01.avi 3\r\n"
        write(folder / f"trainlist0{split}.txt", train)
        test = f"HandstandPushups/v_HandStandPushups_g0{split}_c01.avi\r\n"
        write(folder / f"testlist0{split}.txt", test)
    return tmp_path / "annotations"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return touch(
        tmp_path / "UCF-101",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
        "HandstandPushups/v_HandstandPushups_g01_c01.avi",
        "YoYo/v_YoYo_g02_c01.mp4",
    )


def test_lists_and_labels(annotations: Path, root: Path) -> None:
    """Three splits, indices from 0, the actual paths of videos, and names that a text tower can read."""
    data_set = read_ucf101([annotations], root)
    assert [each.name for each in data_set.lists] == [
        f"{which}list_split{split}.txt" for split in (1, 2, 3) for which in ("train", "val")
    ]
    lists = {each.name: each.items for each in data_set.lists}
    assert lists["trainlist_split1.txt"] == (
        VideoItem("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", 0),
        VideoItem("YoYo/v_YoYo_g01_c01.avi", 2),
    )
    assert lists["trainlist_split2.txt"][1] == VideoItem("YoYo/v_YoYo_g02_c01.mp4", 2)
    assert data_set.labels == {LABELS_FILE: ("Apply Eye Makeup", "Handstand Pushups", "YoYo")}


def test_the_archive_and_its_lists_disagree_in_case(annotations: Path, root: Path) -> None:
    """v_HandStandPushups in the list is v_HandstandPushups on disk."""
    lists = {each.name: each.items for each in read_ucf101([annotations], root).lists}
    assert lists["vallist_split1.txt"] == (VideoItem("HandstandPushups/v_HandstandPushups_g01_c01.avi", 1),)


def test_names_of_all_classes(labels_dir: Path, root: Path, tmp_path: Path) -> None:
    """The order is that of classInd.txt, and only YoYo keeps a capital inside a word."""
    names = (labels_dir / "ucf101.txt").read_text(encoding="utf-8").split()
    write(tmp_path / "a" / "classInd.txt", "".join(f"{at} {name}\n" for at, name in enumerate(names, 1)))
    for split in (1, 2, 3):
        for which in ("train", "test"):
            write(tmp_path / "a" / f"{which}list0{split}.txt", "YoYo/v_YoYo_g02_c01.avi\n")
    readable = read_ucf101([tmp_path / "a"], root).labels[LABELS_FILE]
    assert [name.replace(" ", "") for name in readable] == names
    assert [name for name in readable if any(word[1:] != word[1:].lower() for word in name.split())] == ["YoYo"]
    assert readable[24] == "Cutting In Kitchen"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classInd.txt", "1 ApplyEyeMakeup\n3 YoYo\n", "classInd.txt: class numbers must be 1 to 2"),
        ("classInd.txt", "1 ApplyEyeMakeup\n1 YoYo\n", "classInd.txt:2: class number 1 is given twice"),
        ("classInd.txt", "1 ApplyEyeMakeup\nYoYo\n", "classInd.txt:2: expected 2 columns"),
        ("classInd.txt", "one ApplyEyeMakeup\n", "classInd.txt:1: the class number must be an integer"),
        ("classInd.txt", "", "classInd.txt: class numbers"),
        ("trainlist02.txt", "\nSkiing/v_Skiing_g01_c01.avi 1\n", "trainlist02.txt:2: 'Skiing' is not a class"),
        ("trainlist02.txt", "YoYo/v_YoYo_g01_c01.avi 2\n", "trainlist02.txt:1: class number 2 is not that of YoYo"),
    ],
)
def test_malformed_annotations(annotations: Path, root: Path, name: str, text: str, message: str) -> None:
    """Errors name file and line."""
    write(annotations / "ucfTrainTestlist" / name, text)
    with pytest.raises(ListError, match=message):
        read_ucf101([annotations], root)


def test_missing_annotations(annotations: Path, root: Path) -> None:
    """Errors name a missing file, a missing folder and a duplicated file."""
    with pytest.raises(ListError, match="nowhere: no such file or folder"):
        read_ucf101([annotations / "nowhere"], root)
    write(annotations / "copy" / "classInd.txt", "1 YoYo\n")
    with pytest.raises(ListError, match=r"both match classInd\.txt"):
        read_ucf101([annotations], root)
    (annotations / "ucfTrainTestlist" / "testlist03.txt").unlink()
    with pytest.raises(ListError, match=r"no file named testlist03\.txt"):
        read_ucf101([annotations / "ucfTrainTestlist"], root)
