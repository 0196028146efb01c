"""The labels of mirrored videos, from class names."""

from __future__ import annotations

from pathlib import Path

from mote_fast.data.flip_labels import mirror_labels, one_sided

RELEASED = {86: 87, 87: 86, 93: 94, 94: 93, 166: 167, 167: 166}


def test_something_something(labels_dir: Path) -> None:
    """The map computed from the 174 class names equals the numbers in the official code."""
    names = [line for line in (labels_dir / "ssv2.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(names) == 174
    assert mirror_labels(names) == RELEASED


def test_small_example() -> None:
    """Only whole words count, and only where the mirrored name is another class."""
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
    assert mirror_labels(names) == {0: 3, 3: 0, 2: 5, 5: 2, 6: 7, 7: 6}


def test_other_data_sets_have_none(labels_dir: Path) -> None:
    """A flip changes no label of the other data sets."""
    for name in ("k400", "ucf101", "hmdb51"):
        assert mirror_labels((labels_dir / f"{name}.txt").read_text(encoding="utf-8").splitlines()) == {}


def test_turns_have_mirror_images_too() -> None:
    """A clockwise turn, mirrored, is a counterclockwise one, however that is spelled."""
    names = ["turning clockwise", "spinning", "turning anti-clockwise"]
    assert mirror_labels(names) == {0: 2, 2: 0}
    assert one_sided(names) == []


def test_a_class_without_its_mirror_image_is_one_sided() -> None:
    """Its mirrored videos show no class of the list; neither does the second spelling of a class that has a mirror."""
    names = ["circle moving right", "square moving left", "triangle moving up", "Left turn", "right turn", "left turn"]
    assert mirror_labels(names) == {3: 4, 4: 3}
    assert one_sided(names) == [0, 1, 5]
    assert one_sided(["from left to right", "from right to left", "bright light", "copyright"]) == []
