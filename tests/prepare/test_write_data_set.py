"""Checking a data set and writing its files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from mote_fast.data.flip_labels import read_flip_labels
from mote_fast.data.items import VideoItem, read_labels, read_list
from mote_fast.errors import ConfigError, ListError
from mote_fast.prepare.lists import LABELS_FILE, LOCK_FILE, DataSet, VideoList
from mote_fast.prepare.prepare_settings import ScanOptions
from mote_fast.prepare.write_data_set import write_data_set
from mote_fast.runtime.lock import FileLock
from tests.prepare.conftest import VideoMaker, write

TRAIN = (
    VideoItem("to left/sound one.avi", 0),
    VideoItem("to left/gone.avi", 0),
    VideoItem("to left/empty.avi", 0),
    VideoItem("to right/text.avi", 1),
    VideoItem("to right/short.avi", 1),
    VideoItem("to right/copy.avi", 1),
)
VAL = (VideoItem("to right/sound two.avi", 1),)
NAMES = ("to left", "to right")
DATA_SET = DataSet(
    "some",
    (VideoList("trainlist.txt", TRAIN), VideoList("vallist.txt", VAL)),
    {LABELS_FILE: NAMES},
    {0: 1, 1: 0},
    ("These are some videos.",),
)


@pytest.fixture
def root(tmp_path: Path, make_video: VideoMaker) -> Path:
    """A folder with one video of each kind of fault."""
    root = tmp_path / "root"
    sound = make_video(root / "to left" / "sound one.avi")
    make_video(root / "to right" / "sound two.avi")
    make_video(root / "to right" / "short.avi", frames=3)
    shutil.copy(sound, root / "to right" / "copy.avi")
    write(root / "to left" / "empty.avi", "")
    write(root / "to right" / "text.avi", "no video")
    return root


@pytest.mark.heavy
def test_a_scan_names_every_fault(root: Path, tmp_path: Path) -> None:
    """The report has counts, reasons and lists of each fault; the lists stay complete."""
    output = tmp_path / "out"
    report = write_data_set(DATA_SET, root, output, scan=ScanOptions(workers=2))
    assert report["counts"] == {
        "missing": 1,
        "unreadable": 2,
        "short": 1,
        "unlistable": 0,
        "cut short": 0,
        "duplicate groups": 1,
    }
    assert [(each["kind"], each["path"]) for each in report["problems"]] == [
        ("missing", "to left/gone.avi"),
        ("unreadable", "to left/empty.avi"),
        ("unreadable", "to right/text.avi"),
        ("short", "to right/short.avi"),
    ]
    assert all(each["lists"] == ["trainlist.txt"] for each in report["problems"])
    (group,) = report["duplicates"]
    assert group["paths"] == ("to left/sound one.avi", "to right/copy.avi")
    assert group["several_classes"]
    assert report["lists"]["trainlist.txt"] == {"annotated": 6, "written": 6}
    assert report["videos"]["codecs"] == {"mpeg4": 4}
    assert read_list(output / "trainlist.txt") == list(TRAIN)
    assert read_list(output / "vallist.txt") == list(VAL)
    assert read_labels(output / LABELS_FILE) == list(NAMES)
    assert read_flip_labels(output / "flip_labels.csv") == {0: 1, 1: 0}
    assert json.loads((output / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(report))
    text = (output / "report.txt").read_text(encoding="utf-8")
    for part in (
        "codecs: mpeg4 4",
        "These are some videos.",
        "missing (1)",
        "to right/text.avi: ",
        "duplicate (1)",
        "(several classes)",
    ):
        assert part in text


def test_bad_videos_are_dropped_on_request(root: Path, tmp_path: Path) -> None:
    """Missing, unreadable and short videos are only in the report; identical files stay in the lists."""
    report = write_data_set(DATA_SET, root, tmp_path / "out", scan=ScanOptions(), drop_bad=True)
    kept = ["to left/sound one.avi", "to right/copy.avi"]
    assert [item.path for item in read_list(tmp_path / "out" / "trainlist.txt")] == kept
    assert report["lists"]["trainlist.txt"] == {"annotated": 6, "written": 2}
    assert len(report["problems"]) == 4
    assert "trainlist.txt: 2 videos, 4 left out" in (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")


def test_without_a_scan(root: Path, tmp_path: Path) -> None:
    """The files must exist but are not opened, and the report says so."""
    report = write_data_set(DATA_SET, root, tmp_path / "out")
    assert [each["kind"] for each in report["problems"]] == ["missing", "unreadable"]
    assert not report["scanned"]
    assert "--scan" in (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / "scan.jsonl").exists()


def test_earlier_files_are_safe(root: Path, tmp_path: Path) -> None:
    """An existing file raises before the scan starts; the journal of a scan does not."""
    output = tmp_path / "out"
    write(output / "vallist.txt", "mine")
    with pytest.raises(ConfigError, match=r"vallist\.txt: exists; give --force"):
        write_data_set(DATA_SET, root, output, scan=ScanOptions())
    assert [path.name for path in output.iterdir()] == ["vallist.txt"]
    write_data_set(DATA_SET, root, output, force=True, scan=ScanOptions())
    assert read_list(output / "vallist.txt") == list(VAL)


@pytest.mark.heavy
def test_the_same_call_completes_an_interrupted_one(root: Path, tmp_path: Path) -> None:
    """After a kill between two files, only the missing ones are written; after a whole call, none; no lock is left."""
    output = tmp_path / "out"
    options = {"scan": ScanOptions(workers=2), "drop_bad": True}
    report = write_data_set(DATA_SET, root, output, **options)
    whole = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in output.iterdir()}
    for name in ("vallist.txt", "report.json"):
        (output / name).unlink()
    assert write_data_set(DATA_SET, root, output, **options) == report
    again = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in output.iterdir()}
    assert {name for name in whole if whole[name] != again[name]} == {"vallist.txt", "report.json", "scan.jsonl"}
    assert {name: again[name][0] for name in again if name != "scan.jsonl"} == {
        name: whole[name][0] for name in whole if name != "scan.jsonl"
    }
    with pytest.raises(ConfigError, match=r"trainlist\.txt: exists; give --force"):
        write_data_set(DATA_SET, root, output, scan=ScanOptions(workers=2))


def test_two_calls_do_not_share_an_output(root: Path, tmp_path: Path) -> None:
    """The second is told who is first."""
    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / LOCK_FILE, "out"),
        pytest.raises(ConfigError, match=f"out: in use by process {os.getpid()} "),
    ):
        write_data_set(DATA_SET, root, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_no_file_can_hold_is_refused_before_the_scan(root: Path, tmp_path: Path) -> None:
    """A class whose name has a line break; files that are no videos are named and not opened."""
    data_set = DataSet("odd", DATA_SET.lists, {LABELS_FILE: ("a\nb", "c")})
    with pytest.raises(ListError, match="not one line"):
        write_data_set(data_set, root, tmp_path / "out", scan=ScanOptions())
    assert not (tmp_path / "out").exists()
    os.mkfifo(root / "to left" / "gone.avi")
    (root / "to left" / "empty.avi").unlink()
    (root / "to left" / "empty.avi").mkdir()
    report = write_data_set(DATA_SET, root, tmp_path / "out")
    assert [(each["path"], each["reason"]) for each in report["problems"]] == [
        ("to left/empty.avi", "not a regular file"),
        ("to left/gone.avi", "not a regular file"),
    ]


def test_a_wrong_root(tmp_path: Path) -> None:
    """If no video exists, the root is wrong, and nothing is written."""
    (tmp_path / "root").mkdir()
    with pytest.raises(ListError, match="check --root"):
        write_data_set(DATA_SET, tmp_path / "root", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_list_without_videos_is_not_written(root: Path, tmp_path: Path) -> None:
    """With part of a data set on disk, a list may be empty, and reading it would be an error."""
    absent = VideoList("testlist.txt", (VideoItem("test/x.avi", 0),))
    data_set = DataSet("some", (*DATA_SET.lists, absent), DATA_SET.labels)
    report = write_data_set(data_set, root, tmp_path / "out", drop_bad=True)
    assert not (tmp_path / "out" / "testlist.txt").exists()
    assert report["notes"] == ["testlist.txt was not written: it would be empty."]
    assert report["lists"]["testlist.txt"] == {"annotated": 1, "written": 0}


def test_names_that_no_list_can_hold(root: Path, tmp_path: Path, make_video: VideoMaker) -> None:
    """Names with a line break or not in UTF-8 are reported and omitted; lists and reports stay valid."""
    odd = ["to left/line\nbreak.avi", os.fsdecode(b"to left/latin \xe9.avi")]
    for path in odd:
        shutil.copy(root / "to left" / "sound one.avi", root / path)
    items = tuple(VideoItem(path, 0) for path in odd)
    data_set = DataSet("odd", (VideoList("trainlist.txt", (*TRAIN[:1], *items)),), DATA_SET.labels)
    report = write_data_set(data_set, root, tmp_path / "out", scan=ScanOptions())
    assert read_list(tmp_path / "out" / "trainlist.txt") == list(TRAIN[:1])
    assert {each["path"] for each in report["problems"] if each["kind"] == "unlistable"} == set(odd)
    written = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert {each["path"] for each in written["problems"]} == set(odd)
    assert "latin" in (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
