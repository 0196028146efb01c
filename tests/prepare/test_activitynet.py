"""ActivityNet's segments from its JSON: clips, lists, notes, and what is malformed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mote_fast.data.items import VideoItem
from mote_fast.errors import ListError
from mote_fast.prepare.activitynet import read_activitynet, read_segments
from mote_fast.prepare.lists import LABELS_FILE
from tests.prepare.conftest import touch, write


def entry(subset: str, *annotations: tuple[float, float, str]) -> dict[str, Any]:
    listed = [{"segment": [start, end], "label": label} for start, end, label in annotations]
    return {"duration": 99.5, "subset": subset, "resolution": "320x240", "annotations": listed}


DATABASE = {
    "-_Az1.x": entry("training", (0.01, 82.73, "Long jump"), (90, 95.5, "Archery"), (0.01, 82.73, "Long jump")),
    "b": entry("validation", (3, 3, "Archery"), (5, 4, "Archery"), (1.5, 2.5, "Long jump")),
    "c": entry("testing"),
}


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    content = {"version": "VERSION 1.3", "taxonomy": [], "database": DATABASE}
    return write(tmp_path / "notes" / "activity_net.v1-3.min.json", json.dumps(content)).parent


def test_segments_are_clips(annotations: Path, tmp_path: Path) -> None:
    """Classes are numbered by name; clips are found wherever they are, and a missing one is where it would be cut."""
    root = touch(tmp_path / "clips", "train/v_-_Az1.x_0000010_0082730.mkv", "Archery/v_b_0001500_0002500.mp4")
    data_set = read_activitynet([annotations], root)
    assert {each.name: each.items for each in data_set.lists} == {
        "trainlist.txt": (
            VideoItem("train/v_-_Az1.x_0000010_0082730.mkv", 1),
            VideoItem("Archery/v_-_Az1.x_0090000_0095500.mp4", 0),
        ),
        "vallist.txt": (VideoItem("Archery/v_b_0001500_0002500.mp4", 1),),
    }
    assert data_set.labels == {LABELS_FILE: ("Archery", "Long jump")}
    assert [note.split()[0] for note in data_set.notes] == ["1", "2", "1", "The"]
    assert "held out" in data_set.notes[0]
    assert "before they begin" in data_set.notes[1]
    assert "twice" in data_set.notes[2]
    assert "2 classes, the whole data set has 200" in data_set.notes[3]


def test_a_label_is_no_path(annotations: Path) -> None:
    """A class is a folder below the root, whatever its name is."""
    database = {"a": entry("training", (0, 1, "../../etc"), (0, 1, "..."), (0, 1, "Wash, dry & cut (hair)"))}
    file = write(annotations / "activity_net.v1-3.min.json", json.dumps({"database": database}))
    segments, _ = read_segments([file])
    assert [segment.clip.split("/")[0] for segment in segments] == ["_etc", "_", "Wash,_dry_&_cut_(hair)"]
    assert all(segment.clip.count("/") == 1 for segment in segments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must be an object with a 'database'"),
        ({"database": []}, "must be an object with a 'database'"),
        ({"database": {}}, "has no annotated segments"),
        ({"database": {"a": entry("testing")}}, "has no annotated segments"),
        ({"database": {"a": 1}}, "video 'a': needs a list of 'annotations'"),
        ({"database": {"a": entry("holdout")}}, "video 'a': the subset must be one of training, validation, testing"),
        ({"database": {"a/../b": entry("training")}}, "is not an identifier"),
        ({"database": {"a": {"subset": "training", "annotations": [3]}}}, "annotation 1: needs a 'label'"),
        ({"database": {"a": entry("training", (0, 1, "x"), (0, 1, " "))}}, "annotation 2: needs a 'label'"),
        ({"database": {"a": entry("training", (-1, 1, "x"))}}, r"needs a 'segment' of two times .* \[-1, 1\]"),
        ({"database": {"a": entry("training", (0, 1e300, "x"))}}, "needs a 'segment'"),
        (
            {"database": {"a": {"subset": "training", "annotations": [{"label": "x", "segment": ["0", "1"]}]}}},
            "needs a 'segment'",
        ),
    ],
)
def test_malformed_annotations(annotations: Path, content: Any, message: str) -> None:
    """Errors name the file, the video and the annotation."""
    file = write(annotations / "activity_net.v1-3.min.json", json.dumps(content))
    with pytest.raises(ListError, match=message) as raised:
        read_segments([file])
    assert str(raised.value).startswith(str(file))


def test_no_annotations(tmp_path: Path) -> None:
    """A folder without the file, or with two of them."""
    with pytest.raises(ListError, match="no file named"):
        read_segments([tmp_path])
