"""Lists from a CSV of paths and class names."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from mote_fast.cli import main
from mote_fast.data.items import VideoItem, read_labels, read_list, scan_folder
from mote_fast.errors import ConfigError, ListError
from mote_fast.prepare.lists import LABELS_FILE
from mote_fast.prepare.named_table import read_named_table
from mote_fast.runtime.environment import PRESETS


def table(folder: Path, text: str) -> Path:
    """A CSV file."""
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_classes_are_sorted_and_split(tmp_path: Path) -> None:
    """As from a folder per class: the same share, underscores, and labels of mirrored videos."""
    rows = "".join(f"{name[5]}{at}.mp4,{name}\n" for name in ("turn_right", "turn left") for at in range(8))
    data_set = read_named_table(table(tmp_path, "Path,Label\n" + rows))
    assert data_set.labels == {LABELS_FILE: ("turn left", "turn right")}
    assert data_set.flip_labels == {0: 1, 1: 0}
    assert [(each.name, len(each.items)) for each in data_set.lists] == [("trainlist.txt", 12), ("vallist.txt", 4)]
    assert VideoItem("r0.mp4", 1) in [item for each in data_set.lists for item in each.items]
    (note,) = data_set.notes
    assert note.startswith("4 of 16 videos (25%) are for validation")
    assert len(read_named_table(tmp_path / "labels.csv", val_share=0).lists) == 1


def test_a_column_that_splits(tmp_path: Path) -> None:
    """It decides alone; a cell left blank trains."""
    text = 'path,label,split\na.mp4,x,train\n"b, c.mp4",y,Test\nd.mp4,y,\n'
    lists = {each.name: each.items for each in read_named_table(table(tmp_path, text)).lists}
    assert lists == {
        "trainlist.txt": (VideoItem("a.mp4", 0), VideoItem("d.mp4", 1)),
        "vallist.txt": (VideoItem("b, c.mp4", 1),),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\na.mp4,x\n", r"lacks the columns \['label'\]"),
        ("path,label\n", "lists no videos"),
        ("path,label\na.mp4,\n", r"labels\.csv:2: its label is blank"),
        ("path,label\n,x\n", r"labels\.csv:2: its path is blank"),
        ("path,label\na.mp4,x\na.mp4,y\n", r"labels\.csv:3: 'a\.mp4' is listed already, at .*csv:2"),
        ("path,label,split\na.mp4,x,tarin\n", "its split is 'tarin'; known are test, train"),
        ("path,label\na.mp4,0\nb.mp4,1\n", r"numbers, not class names; .*data\.train_list="),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    """The line is named, or what to do."""
    with pytest.raises(ListError, match=message):
        read_named_table(table(tmp_path, text))


def test_a_share_out_of_range(tmp_path: Path) -> None:
    """As for a folder."""
    with pytest.raises(ConfigError, match="--val-share"):
        read_named_table(tmp_path / "none.csv", val_share=1.0)


def test_from_a_flat_folder_to_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`prepare folder` sends here, and the command ends with the one that trains."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("1.mp4", "2.mp4", "3.mp4"):
        shutil.copyfile(next(PRESETS.glob("demo/*/*.mp4")), videos / name)
    places = ["--root", str(videos), "--output", str(tmp_path / "lists")]
    assert main(["prepare", "folder", *places]) == 2
    assert "its 3 videos lie in no class folders; expected" in (said := capsys.readouterr().err)
    assert "`mote-fast prepare csv`" in said
    rows = table(tmp_path, "path,label\n1.mp4,juggling\n2.mp4,archery\n3.mp4,archery\n")
    assert main(["prepare", "csv", "--annotations", str(rows), *places]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    assert read_labels(settings["data.labels"]) == ["archery", "juggling"]
    listed = [*read_list(settings["data.train_list"]), *read_list(settings["data.val_list"])]
    assert sorted((item.path, item.label) for item in listed) == [("1.mp4", 1), ("2.mp4", 0), ("3.mp4", 0)]


def test_videos_beside_class_folders_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They were left out without a word."""
    (tmp_path / "a").mkdir()
    for name in ("a/1.mp4", "2.mp4"):
        (tmp_path / name).touch()
    assert len(scan_folder(tmp_path)[0]) == 1
    assert "1 videos beside the class folders are left out, such as 2.mp4" in caplog.text
