from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch

from mote_fast.errors import ConfigError
from mote_fast.timeline.time_segments import Segment
from mote_fast.timeline.timeline import Timeline
from mote_fast.timeline.timeline_files import clock_text, content_of

LABELS = ["jumping", "跳水 & <b>", "a\nb --> c"]
SEGMENTS = [Segment(0.0, 1.5, LABELS[0], 0, 0.75), Segment(3661.25, 3662.0, LABELS[1], 1, 0.5)]
SEGMENTS.append(Segment(3662.0, 3663.0, LABELS[2], 2, 0.25))


@pytest.fixture
def timeline() -> Timeline:
    scores = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    levels = torch.tensor([0.5, 0.25])
    return Timeline("a/b.mp4", 3700.0, LABELS, SEGMENTS, [1.0, 2.0], scores, scores, levels, 0.375, "given", 4, 2, 1)


def test_json_has_everything(timeline: Timeline, tmp_path: Path) -> None:
    """Segments and windows read back as they were."""
    timeline.save(tmp_path / "t.json")
    found = json.loads((tmp_path / "t.json").read_text())
    assert [Segment(**each) for each in found["segments"]] == SEGMENTS
    assert found["scores"] == timeline.scores.tolist()
    assert (found["threshold"], found["rejection"], found["fps"]) == (0.375, "given", 4)


def test_csv_reads_back(timeline: Timeline, tmp_path: Path) -> None:
    """Labels of any script, and with line breaks, are read back by Python's csv."""
    timeline.save(tmp_path / "t.csv")
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == LABELS
    assert [float(row["start"]) for row in rows] == [each.start for each in SEGMENTS]


@pytest.mark.parametrize(("suffix", "point"), [("srt", ","), ("vtt", ".")])
def test_subtitles_have_a_cue_for_each_segment(suffix: str, point: str, timeline: Timeline, tmp_path: Path) -> None:
    """Cues are separated by blank lines, and no label is taken for times, for markup or for two lines."""
    timeline.save(tmp_path / f"t.{suffix}")
    text = (tmp_path / f"t.{suffix}").read_text(encoding="utf-8")
    blocks = text.strip().split("\n\n")[1 if suffix == "vtt" else 0 :]
    lines = [block.split("\n")[0 if suffix == "vtt" else 1 :] for block in blocks]
    assert [each[0] for each in lines][1] == f"01:01:01{point}250 --> 01:01:02{point}000"
    assert [len(each) for each in lines] == [2, 2, 2]
    assert len(re.findall("-->", text)) == 3
    assert "跳水" in text
    assert ("<b>" in text) == (suffix == "srt")


def test_times_of_subtitles() -> None:
    """A time that rounds up to the next minute carries over."""
    assert clock_text(59.9996, ",") == "00:01:00,000"
    assert clock_text(7325.5, ".") == "02:02:05.500"


def test_activitynet(timeline: Timeline, tmp_path: Path) -> None:
    """The form of the evaluations: results by the name of the video, a segment as two seconds."""
    timeline.save(tmp_path / "t.json", "activitynet")
    found = json.loads((tmp_path / "t.json").read_text())
    assert found["results"]["b"][0] == {"label": "jumping", "score": 0.75, "segment": [0.0, 1.5]}
    with pytest.raises(ConfigError, match="another video"):
        content_of([timeline, timeline], "activitynet")


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.filterwarnings("ignore:Glyph")
def test_png(timeline: Timeline, tmp_path: Path) -> None:
    """A picture of the segments, also of none."""
    pytest.importorskip("matplotlib")
    timeline.save(tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert len(timeline.plot().axes) == 2
    empty = Timeline("v", 1.0, LABELS, [], [0.5], torch.ones(1, 3), torch.ones(1, 3), torch.ones(1), None, "", 4, 2, 1)
    empty.save(tmp_path / "empty.png")


@pytest.mark.parametrize("name", ["t.txt", "t"])
def test_unknown_forms(name: str, timeline: Timeline, tmp_path: Path) -> None:
    """Nothing is written under a suffix that asks for no form."""
    with pytest.raises(ConfigError, match="activitynet"):
        timeline.save(tmp_path / name)
    with pytest.raises(ConfigError, match="one video"):
        content_of([timeline, timeline], "srt")
