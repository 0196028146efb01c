"""The laboratory's untrimmed videos and its measures of timelines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from localization import EXAMPLE, covered
from reliability import area, reliability
from world.splits import COMBINATIONS, splits
from world.untrimmed import GAP_SECONDS, Truth, write_untrimmed

from mote_fast import Segment, load
from mote_fast.data import probe


def test_untrimmed_videos_repeat(tmp_path: Path) -> None:
    """A file is a function of its arguments; actions lie apart within it, and the first gap holds the example."""
    split = splits()[COMBINATIONS]
    first, again = (write_untrimmed(tmp_path / name, split.classes, 2, ("x", 1)) for name in ("a.mp4", "b.mp4"))
    assert first == again
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert EXAMPLE[1] <= GAP_SECONDS[0] <= first[0].start
    assert first[0].end + GAP_SECONDS[0] <= first[1].start + 0.05
    assert first[1].end < probe(tmp_path / "a.mp4").duration
    assert {each.label for each in first} <= set(split.labels)


@pytest.mark.heavy
def test_timeline_of_the_shipped_model(tmp_path: Path) -> None:
    """It finds the actions of a drawn video, and nothing in a background, with the level that it records."""
    clf, split = load("tiny").fold(), splits()[COMBINATIONS]
    truths = write_untrimmed(tmp_path / "acting.mp4", split.classes, 3, ("test", 1))
    write_untrimmed(tmp_path / "still.mp4", split.classes, 0, ("test", 1), gaps=2)
    classes = clf.class_features(split.labels)
    acting, still = (
        clf.timeline(tmp_path / name, split.labels, window=1, hop=0.125, background="auto", class_features=classes)
        for name in ("acting.mp4", "still.mp4")
    )
    assert all(covered(acting.segments, truth) for truth in truths)
    assert still.segments == []
    assert still.threshold == clf.reject_level == 0.5


def test_measures_by_hand() -> None:
    """Half of a true segment must have a label; confidence is compared with accuracy bin by bin; ties count half."""
    truth = Truth(1, 3, "a")
    assert covered([Segment(0, 2, "b", 1, 0.5)], truth)
    assert not covered([Segment(0, 1.9, "b", 1, 0.5)], truth)
    rows, error = reliability(torch.tensor([0.75, 0.75, 0.25]), torch.tensor([1, 0, 0]))
    assert rows == [(0.25, 0.0, 1), (0.75, 0.5, 2)]
    assert error == pytest.approx(0.25)
    assert area([1.0, 2.0], [1.0, 0.0]) == 0.875
