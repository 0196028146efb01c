"""HMDB-51 from its official annotation files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote_fast.data.items import VideoItem
from mote_fast.errors import ListError
from mote_fast.prepare.hmdb51 import read_hmdb51
from mote_fast.prepare.lists import LABELS_FILE
from tests.prepare.conftest import touch, write


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Files of testTrainMulti_7030_splits: a space follows the flag."""
    folder = tmp_path / "annotations"
    for split in (1, 2, 3):
        brush = "April_brush_hair_u_nm_np1_ba_goo_0.avi 1 \nOld_brush_hair_u_nm_np1_ba_goo_1.avi 0 \n"
        write(folder / f"brush_hair_test_split{split}.txt", brush)
        chew = "#2_Gum_chew_h_nm_np1_fr_med_0.avi 2 \nKau;-)_chew_h_nm_np1_fr_med_0.avi 1 \n"
        write(folder / f"chew_test_split{split}.txt", chew)
    write(folder / "__MACOSX" / "._chew_test_split1.txt", "no annotation")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return touch(tmp_path / "videos", "chew/#2_Gum_chew_h_nm_np1_fr_med_0.avi")


def test_lists_and_labels(annotations: Path, root: Path) -> None:
    """Flag 1 trains, 2 validates, 0 is unused; classes are numbered by name."""
    data_set = read_hmdb51([annotations], root)
    assert [each.name for each in data_set.lists] == [
        f"{which}list_split{split}.txt" for split in (1, 2, 3) for which in ("train", "val")
    ]
    assert data_set.lists[0].items == (
        VideoItem("brush_hair/April_brush_hair_u_nm_np1_ba_goo_0.avi", 0),
        VideoItem("chew/Kau;-)_chew_h_nm_np1_fr_med_0.avi", 1),
    )
    assert data_set.lists[5].items == (VideoItem("chew/#2_Gum_chew_h_nm_np1_fr_med_0.avi", 1),)
    assert data_set.labels == {LABELS_FILE: ("brush hair", "chew")}


def test_labels_are_those_of_the_data_set(labels_dir: Path, root: Path, tmp_path: Path) -> None:
    """All 51 classes get the indices of the data set's list of classes."""
    names = (labels_dir / "hmdb51.txt").read_text(encoding="utf-8").split()
    for name in names:
        for split in (1, 2, 3):
            write(tmp_path / "all" / f"{name}_test_split{split}.txt", f"a_{name}.avi 1\nb_{name}.avi 2\n")
    data_set = read_hmdb51([tmp_path / "all"], root)
    assert [name.replace(" ", "_") for name in data_set.labels[LABELS_FILE]] == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.avi 1\nb.avi 3\n", "chew_test_split2.txt:2: the flag must be 0, 1 or 2, found '3'"),
        ("a.avi\n", "chew_test_split2.txt:1: expected 2 columns"),
    ],
)
def test_malformed_annotations(annotations: Path, root: Path, text: str, message: str) -> None:
    """Errors name file and line."""
    write(annotations / "chew_test_split2.txt", text)
    with pytest.raises(ListError, match=message):
        read_hmdb51([annotations], root)


def test_a_missing_or_doubled_split(annotations: Path, root: Path) -> None:
    """A class without one of its splits would miss from a list; a second copy would count twice."""
    write(annotations / "more" / "chew_test_split2.txt", "a.avi 1\n")
    with pytest.raises(ListError, match="both there"):
        read_hmdb51([annotations], root)
    (annotations / "more" / "chew_test_split2.txt").unlink()
    (annotations / "chew_test_split2.txt").unlink()
    with pytest.raises(ListError, match=r"chew_test_split2\.txt is missing"):
        read_hmdb51([annotations], root)
