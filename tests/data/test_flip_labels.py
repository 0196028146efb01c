"""Reading the labels of mirrored videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote_fast.data.flip_labels import format_flip_labels, read_flip_labels
from mote_fast.data.plan import ClipRecipe
from mote_fast.errors import ListError

LABELS = {86: 87, 87: 86, 93: 94, 94: 93, 166: 167, 167: 166, 3: None}


def test_files_are_read_back(tmp_path: Path) -> None:
    """CSV as written, and JSON, fill a recipe."""
    (tmp_path / "flip.csv").write_text(format_flip_labels(LABELS), encoding="utf-8")
    (tmp_path / "flip.json").write_text('{"1": 2, "2": 1, "3": null}', encoding="utf-8")
    assert ClipRecipe(flip_labels=read_flip_labels(tmp_path / "flip.csv")).flip_labels == LABELS
    assert read_flip_labels(tmp_path / "flip.json") == {1: 2, 2: 1, 3: None}
    (tmp_path / "none.csv").write_text(format_flip_labels({}), encoding="utf-8")
    assert read_flip_labels(tmp_path / "none.csv") == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("f.csv", "id,other\n1,2\n", "'flipped'"),
        ("f.csv", "id,flipped\n1,2\n2,x\n", "f.csv:3"),
        ("f.csv", "id,flipped\n1,2\n1,2\n", "f.csv:3: 1 is listed twice"),
        ("f.csv", "id,flipped\n1,2\n", "2 must flip to 1"),
        ("f.csv", "id,flipped\n-1,2\n", "f.csv:2"),
        ("f.csv", "id,flipped\n1\n", "f.csv:2"),
        ("f.json", '{\n"1": }', "f.json:2"),
        ("f.json", "[1, 2]", "one object"),
    ],
)
def test_malformed_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    """The error names file, line and problem."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ListError, match=message):
        read_flip_labels(tmp_path / name)


def test_missing_file(tmp_path: Path) -> None:
    """A missing file is named."""
    with pytest.raises(ListError, match=r"none\.csv"):
        read_flip_labels(tmp_path / "none.csv")


@pytest.mark.parametrize("text", ['{"1": 2, "1": 2, "2": 1}', '{"1": 2, "01": 2, "2": 1}', '{"1": true}', '{"1": 1.0}'])
def test_json_that_says_two_things(tmp_path: Path, text: str) -> None:
    """A label given twice, and values that are no integers."""
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(ListError, match=r"f\.json"):
        read_flip_labels(tmp_path / "f.json")
