from __future__ import annotations

import json
from pathlib import Path

import pytest

from mote_fast.errors import ListError
from mote_fast.evaluation.localization import localization_of, overlap_of
from mote_fast.evaluation.localization_lists import TrueSegment, read_true_segments
from mote_fast.timeline.time_segments import Segment


def segment(start: float, end: float, score: float, label: str = "a") -> Segment:
    return Segment(start, end, label, 0, score)


TRUE = {"one": [TrueSegment(0, 10, "a"), TrueSegment(20, 30, "a")], "two": [TrueSegment(5, 15, "b")]}


def test_overlap() -> None:
    """Intersection over union; segments that only touch do not overlap."""
    assert overlap_of(TrueSegment(0, 10, "a"), TrueSegment(5, 15, "a")) == pytest.approx(1 / 3)
    assert overlap_of(TrueSegment(0, 10, "a"), TrueSegment(10, 15, "a")) == 0


def test_perfect_segments() -> None:
    """The true segments themselves have the full precision and no error of their boundaries."""
    found = {name: [segment(at.start, at.end, 1.0, at.label) for at in each] for name, each in TRUE.items()}
    judged = localization_of(found, TRUE)
    assert list(judged.precision.values()) == [100, 100, 100]
    assert (judged.boundary_error, judged.matched, judged.classes) == (0, 100, 2)


def test_average_precision_by_hand() -> None:
    """Of class a: right, wrong, right by score, so (1 + 2/3) / 2; class b is found nowhere. A second match is wrong."""
    found = {"one": [segment(0, 10, 0.9), segment(0, 9, 0.8), segment(20, 31, 0.7)]}
    judged = localization_of(found, TRUE, [0.5])
    assert judged.precision[0.5] == pytest.approx(100 * (1 + 2 / 3) / 2 / 2)
    assert judged.boundary_error == pytest.approx(1 / 4)
    assert judged.matched == pytest.approx(100 * 2 / 3)


def test_segments_in_videos_without_any() -> None:
    """What is found in a video without the class counts against the precision."""
    clean = localization_of({"two": [segment(5, 15, 0.5, "b")]}, TRUE, [0.5])
    noisy = localization_of({"two": [segment(5, 15, 0.5, "b")], "none": [segment(0, 1, 0.9, "b")]}, TRUE, [0.5])
    assert (clean.precision[0.5], noisy.precision[0.5]) == (50, 25)


def test_thumos_annotations(tmp_path: Path) -> None:
    """One file a class; ambiguous times and the other part are left out, and names become words."""
    (tmp_path / "BaseballPitch_test.txt").write_text("video_test_0000324  179.2 185.4\nvideo_test_0000324  3 1.5\n")
    (tmp_path / "BaseballPitch_val.txt").write_text("video_validation_0000001 1 2\n")
    (tmp_path / "Ambiguous_test.txt").write_text("video_test_0000324 1 2\n")
    found = read_true_segments(tmp_path, "test")
    expected = [TrueSegment(179.2, 185.4, "baseball pitch"), TrueSegment(1.5, 3, "baseball pitch")]
    assert found == {"video_test_0000324": expected}
    (tmp_path / "Billiards_test.txt").write_text("video_test_0000324 soon 2\n")
    with pytest.raises(ListError, match=r"Billiards_test\.txt:1: a start"):
        read_true_segments(tmp_path, "test")


def test_activitynet_annotations(tmp_path: Path) -> None:
    """Videos of the subset, by their names without v_."""
    path = tmp_path / "activity_net.json"
    entry = {"subset": "validation", "annotations": [{"label": "Archery", "segment": [1.5, 8]}]}
    other = {"subset": "testing", "annotations": []}
    path.write_text(json.dumps({"database": {"v_x": entry, "y": other}}))
    assert read_true_segments(path, "validation") == {"x": [TrueSegment(1.5, 8, "Archery")]}
    with pytest.raises(ListError, match="no segments of the subset"):
        read_true_segments(path, "training")


@pytest.mark.parametrize("damage", [{"segment": [1]}, {"segment": ["a", 2]}, {"label": 3}, {"segment": [1, None]}])
def test_malformed_annotations(damage: dict[str, object], tmp_path: Path) -> None:
    """A list of strangers is refused by the name of the file and the video."""
    path = tmp_path / "a.json"
    entry = {"subset": "validation", "annotations": [{"label": "Archery", "segment": [1.5, 8], **damage}]}
    path.write_text(json.dumps({"database": {"x": entry}}))
    with pytest.raises(ListError, match=r"a\.json: 'x'"):
        read_true_segments(path, "validation")
