"""The labels of mirrored videos."""

from __future__ import annotations

from pathlib import Path

from mote_fast.prepare.flip import flip_labels

RELEASED = {86: 87, 87: 86, 93: 94, 94: 93, 166: 167, 167: 166}


def test_something_something(labels_dir: Path) -> None:
    """The map computed from the 174 class names equals the numbers in the official code."""
    names = [line for line in (labels_dir / "ssv2.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(names) == 174
    assert flip_labels(names) == RELEASED


def test_small_example() -> None:
    """Only the words left and right count, and only where the mirrored name is another class."""
    names = [
        "Pulling something from left to right",
        "Holding something upright",
        "Turning the camera LEFT",
        "Pulling something from right to left",
        "Pulling something right out",
        "Turning the camera RIGHT",
        "Left turn",
        "Right turn",
    ]
    assert flip_labels(names) == {0: 3, 3: 0, 2: 5, 5: 2, 6: 7, 7: 6}


def test_other_data_sets_have_none(labels_dir: Path) -> None:
    """A flip changes no label of the other data sets."""
    for name in ("k400", "ucf101", "hmdb51"):
        assert flip_labels((labels_dir / f"{name}.txt").read_text(encoding="utf-8").splitlines()) == {}
