"""Something-Something V2 from its official annotation files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mote_fast.data.items import VideoItem
from mote_fast.errors import ListError
from mote_fast.prepare.lists import LABELS_FILE
from mote_fast.prepare.ssv2 import read_ssv2, readable_template
from tests.prepare.conftest import touch, write

LABELS = {
    "Pulling something from left to right": "1",
    "Holding something next to something": "0",
    "Pulling something from right to left": "2",
}


def entry(number: int, template: str) -> dict[str, object]:
    return {"id": str(number), "label": "as written", "template": template, "placeholders": ["a pen"]}


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    folder = tmp_path / "labels"
    write(folder / "labels.json", json.dumps(LABELS))
    train = [
        entry(78687, "Holding [something] next to [something]"),
        entry(4, "Pulling [something] from right to left"),
    ]
    write(folder / "train.json", json.dumps(train))
    write(folder / "validation.json", json.dumps([entry(74225, "Pulling [something] from left to right")]))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return touch(tmp_path / "videos", "20bn-something-something-v2/78687.webm", "74225.mp4")


def test_lists_and_labels(annotations: Path, root: Path) -> None:
    """Brackets of placeholders are removed, indices are those of labels.json, and a flip swaps sides."""
    data_set = read_ssv2([annotations], root)
    assert {each.name: each.items for each in data_set.lists} == {
        "trainlist.txt": (VideoItem("20bn-something-something-v2/78687.webm", 0), VideoItem("4.webm", 2)),
        "vallist.txt": (VideoItem("74225.mp4", 1),),
    }
    assert data_set.labels[LABELS_FILE][1] == "Pulling something from left to right"
    assert data_set.flip_labels == {1: 2, 2: 1}


def test_file_names_of_the_first_release(annotations: Path, root: Path) -> None:
    """Names such as something-something-v2-train.json are accepted too."""
    for name in ("labels", "train", "validation"):
        (annotations / f"{name}.json").rename(annotations / f"something-something-v2-{name}.json")
    assert len(read_ssv2([annotations], root).lists) == 2


def test_templates() -> None:
    """Placeholders of every kind become plain words."""
    assert readable_template("Showing [something] to [somewhere's] side") == "Showing something to somewhere's side"
    assert readable_template("Pretending to put [something  similar] ") == "Pretending to put something similar"


def test_labels_are_those_of_the_data_set(labels_dir: Path, annotations: Path, root: Path) -> None:
    """All 174 templates get the indices of the data set's list, and the official pairs swap."""
    lines = (labels_dir / "ssv2.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line.strip()]
    write(annotations / "labels.json", json.dumps({name: str(at) for at, name in enumerate(names)}))
    data_set = read_ssv2([annotations], root)
    assert list(data_set.labels[LABELS_FILE]) == names
    assert data_set.flip_labels == {86: 87, 87: 86, 93: 94, 94: 93, 166: 167, 167: 166}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.json", '[\n{"id": "1",\n]', r"train\.json:3: not JSON"),
        ("train.json", "{}", r"train\.json: must be a list"),
        ("train.json", '[{"id": "1"}]', r"train\.json, video 1: needs an 'id' and a 'template'"),
        ("train.json", '[{"id": "1", "template": "Eating [something]"}]', r"video 1 \(id 1\).*'Eating something'"),
        ("labels.json", "[]", r"labels\.json: must be one object"),
        ("labels.json", '{"a": "0", "b": "2"}', r"labels\.json: class numbers must be 0 to 1"),
        ("labels.json", '{"a": "x"}', r"labels\.json: a must be an integer"),
    ],
)
def test_malformed_annotations(annotations: Path, root: Path, name: str, text: str, message: str) -> None:
    """Errors name the file, and the line or the video."""
    write(annotations / name, text)
    with pytest.raises(ListError, match=message):
        read_ssv2([annotations], root)
