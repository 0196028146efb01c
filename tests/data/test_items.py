"""Lists of videos: the released two-column format, CSV, folder trees, and class names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data.items import (
    VideoItem,
    check_items,
    check_one_label,
    read_csv,
    read_labels,
    read_list,
    scan_folder,
)
from mote_fast.errors import ListError
from mote_fast.prepare.lists import format_list

# File names with inner spaces, digits and other scripts, but without leading or trailing white space.
Name = st.text("ab 1é漢_-", min_size=1, max_size=12).filter(lambda name: name == name.strip())


@given(entries=st.lists(st.tuples(Name, st.integers(0, 999)), min_size=1, max_size=8))
def test_released_list_reads_back(entries: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The label is the last column, for any name, with inner spaces too."""
    path = tmp_path_factory.mktemp("list") / "train.txt"
    path.write_text("".join(f"{name}.mp4 {label}\n" for name, label in entries), encoding="utf-8")
    assert read_list(path, "root") == [VideoItem(f"root/{name}.mp4", label) for name, label in entries]


def test_list_of_extracted_frames(tmp_path: Path) -> None:
    """Something-Something's lists have the frame count in the middle; a video name may end in a number too."""
    path = tmp_path / "train.txt"
    path.write_text("\n78687 42 3\n  a b/clip 2.mp4\t7  \nfolder/clip 12 30 1\n")
    assert read_list(path) == [
        VideoItem("78687", 3, 42),
        VideoItem("a b/clip 2.mp4", 7),
        VideoItem("folder/clip 12", 1, 30),
    ]


def test_csv_from_a_spreadsheet(tmp_path: Path) -> None:
    """A CSV with byte order mark, quotes, and other columns in another order is read, by read_list too."""
    path = tmp_path / "train.csv"
    path.write_text('﻿label,note,path\n3,x,"a, b.mp4"\n', encoding="utf-8")
    assert read_csv(path) == read_list(path) == [VideoItem("a, b.mp4", 3)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "no videos"),
        ("a.txt", "a.mp4 1\nb.mp4\n", r"a\.txt:2"),
        ("a.txt", "a.mp4 one\n", r"a\.txt:1.*'one'"),
        ("a.csv", "path,label\n", "no videos"),
        ("a.csv", "path,class\na.mp4,1\n", "label"),
        ("a.csv", "path,label\na.mp4,\n", r"a\.csv:2"),
        ("a.csv", "path,label\na.mp4\n", r"a\.csv:2"),
    ],
)
def test_malformed_lists_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    """The message names the file, and the line where there is one."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ListError, match=message) as caught:
        read_list(path)
    assert name in str(caught.value)


def test_unreadable_lists_are_refused(tmp_path: Path) -> None:
    """The list is missing, or a video is given instead."""
    (tmp_path / "clip.txt").write_bytes(b"\xff\xfe\x00\x81" * 9)
    for name in ("missing.txt", "clip.txt"):
        with pytest.raises(ListError, match=name):
            read_list(tmp_path / name)


def test_folder_of_classes(tmp_path: Path) -> None:
    """Classes and videos are sorted; other files, hidden folders and empty classes are ignored."""
    for name in (
        "run/b.mp4",
        "run/deep/a.AVI",
        "jump/c.webm",
        "jump/notes.txt",
        ".cache/x.mp4",
        "empty/readme",
        "z.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    items, names = scan_folder(tmp_path)
    assert names == ["jump", "run"]
    assert [(Path(item.path).relative_to(tmp_path).as_posix(), item.label) for item in items] == [
        ("jump/c.webm", 0),
        ("run/b.mp4", 1),
        ("run/deep/a.AVI", 1),
    ]


def test_folder_without_videos_is_refused(tmp_path: Path) -> None:
    """Also one that does not exist."""
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ListError, match=str(folder)):
            scan_folder(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "id,name\n1,jumping rope\n0,archery\n"),
        ("labels.csv", "\ufeffnote,name\nx,archery\n\ny, jumping rope \n"),
        ("labels.txt", "archery\n\n  jumping rope  \n"),
    ],
)
def test_class_names(name: str, text: str, tmp_path: Path) -> None:
    """A CSV with ids in any order, a CSV with rows in order, or plain lines."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / name) == ["archery", "jumping rope"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "id,label\n0,a\n",
        "id,name\n1,a\n",
        "id,name\n0,a\n2,b\n",
        "id,name\n0,a\n0,b\n",
        "id,name\nx,a\n",
        "name\n",
        "name,note\n,a\n",
    ],
)
def test_malformed_class_names_are_refused(text: str, tmp_path: Path) -> None:
    """Ids must be 0 to C - 1, each once, and no name blank: a gap would shift every later class."""
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(ListError, match=r"labels\.csv"):
        read_labels(path)


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_without_a_class_are_refused(label: int) -> None:
    """The message names list and video; UNLABELLED is not a class either."""
    items = [VideoItem("a.mp4", 0), VideoItem("b.mp4", label)]
    with pytest.raises(ListError, match=rf"val\.txt: b\.mp4 has label {label}"):
        check_items(items, 2, "val.txt")
    check_items(items[:1], 2, "val.txt")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "id,name\n0,archery\n0,zumba\n", r"l\.csv:3: .* 0 is given twice, first at .*l\.csv:2"),
        ("l.csv", "id,name\n0,upright on the table, so it falls\n1,b\n", r"l\.csv:2: has more columns"),
        ("l.csv", "id,name\n0,a\n-1,b\n", r"l\.csv:3: .* found -1"),
        ("l.csv", "id,name\n1,a\n2,b\n", r"l\.csv:3: .* 0 to 1, each once; found 2"),
        ("l.csv", "id,name\n0,a\n1, \n", r"l\.csv:3: the class name is blank"),
        ("l.csv", "id,name\n１,a\n", r"l\.csv:2: an id must be an integer"),
        ("l.txt", "id,name\n0,a\n", r"l\.txt: holds a CSV"),
    ],
)
def test_class_names_that_would_move_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    """An id given twice or missing, a name cut at its comma: the error names the line."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ListError, match=message):
        read_labels(tmp_path / name)


def test_equal_names_are_kept_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two classes may have one name; they have equal scores, so the user is told."""
    (tmp_path / "l.csv").write_text("id,name\n1,run\n0,jump\n2,run\n")
    assert read_labels(tmp_path / "l.csv") == ["jump", "run", "run"]
    assert "classes 1 and 2 are both named 'run'" in caplog.text


def test_videos_of_a_list_need_names_and_numbers(tmp_path: Path) -> None:
    """A path that is blank, a label in digits of another script."""
    for name, text, message in (
        ("v.csv", "path,label\na.mp4,0\n ,1\n", r"v\.csv:3: names no video"),
        ("v.csv", "Path,LABEL\na.mp4,１\n", r"v\.csv:2: a label must be an integer"),
        ("v.txt", "a.mp4 1_0\n", r"v\.txt:1: a label must be an integer"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(ListError, match=message):
            read_list(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "line", "item"),
    [
        ("l.txt", "a b.mp4 3,17,2", VideoItem("a b.mp4", 3, 0, (17, 2))),
        ("l.txt", "frames/x 120 3,17", VideoItem("frames/x", 3, 120, (17,))),
        ("l.txt", "a.mp4 3 17 2", VideoItem("a.mp4", 3, 0, (17, 2))),
        ("l.txt", "take 2.webm\t3  17", VideoItem("take 2.webm", 3, 0, (17,))),
        ("l.txt", "frames/x 1 2", VideoItem("frames/x", 2, 1)),
        ("l.txt", "a.mp4 -1", VideoItem("a.mp4", -1)),
        ("l.csv", 'path,label\na.mp4,"3, 17"', VideoItem("a.mp4", 3, 0, (17,))),
    ],
)
def test_several_labels(tmp_path: Path, name: str, line: str, item: VideoItem) -> None:
    """Separated by commas, or by blanks after a video's suffix; the lines that existed before mean what they did."""
    path = tmp_path / name
    path.write_text(f"{line}\n")
    assert read_list(path) == [item]
    assert item.labels == (item.label, *item.others)
    if name == "l.txt":
        path.write_text(format_list([item]))
        assert read_list(path) == [item]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.mp4 3,17,3", "the label 3 is given twice"),
        ("a.mp4 3 3", "the label 3 is given twice"),
        ("a.mp4 3,,17", "a label must be an integer, found ''"),
        ("a.mp4 3,", "found ''"),
        ("a.mp4 3, 17", "commas without blanks"),
        ("a.mp4 3;17", "found '3;17'"),
    ],
)
def test_malformed_labels_are_refused(tmp_path: Path, line: str, message: str) -> None:
    """A label that would be lost, or become part of the path, is an error that names the line."""
    (tmp_path / "l.txt").write_text(f"good.mp4 1\n{line}\n")
    with pytest.raises(ListError, match=f":2: .*{message}"):
        read_list(tmp_path / "l.txt")


def test_every_label_is_checked() -> None:
    """A later label beyond the classes is found too, and lists for one label name the video that has more."""
    items = [VideoItem("a.mp4", 0), VideoItem("b.mp4", 0, others=(5,))]
    with pytest.raises(ListError, match=r"b\.mp4 has label 5"):
        check_items(items, 5, "l.txt")
    check_one_label(items[:1], "l.txt", "")
    with pytest.raises(ListError, match=r"b\.mp4 has 2 labels; use one"):
        check_one_label(items, "l.txt", "use one")
