from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mote_fast.cli import main
from mote_fast.data import write_video

Captured = pytest.CaptureFixture[str]
LABELS = "plain red ring sliding to the right,striped star"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of three seconds of noise, and a file that is none."""
    folder = tmp_path_factory.mktemp("clips")
    frames = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), np.uint8)
    write_video(folder / "one.mp4", frames, fps=10)
    write_video(folder / "two.mp4", frames[::-1].copy(), fps=10)
    (folder / "page.mp4").write_text("<!DOCTYPE html>" * 100)
    return folder


@pytest.mark.heavy
def test_files_of_one_video(clips: Path, tmp_path: Path, capsys: Captured) -> None:
    """Each file has the form of its suffix; what is printed says where the results are."""
    names = ["t.srt", "t.vtt", "t.json", "t.csv", "t.activitynet.json"]
    files = [str(tmp_path / name) for name in names]
    assert main(["timeline", str(clips / "one.mp4"), "--labels", LABELS, "--window", "1", "--output", *files]) == 0
    assert "t.csv: 1 of 1 videos" in capsys.readouterr().out
    (record,) = json.loads((tmp_path / "t.json").read_text())["videos"]
    segments = record["timeline"]["segments"]
    assert segments
    assert record["timeline"]["duration"] == 3
    assert "scores" not in record["timeline"]
    assert (tmp_path / "t.srt").read_text().count("-->") == len(segments)
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        assert [float(row["start"]) for row in csv.DictReader(file)] == [each["start"] for each in segments]
    assert set(json.loads((tmp_path / "t.activitynet.json").read_text())["results"]) == {"one"}


@pytest.mark.heavy
def test_bad_videos_cost_themselves(clips: Path, capsys: Captured) -> None:
    """The other videos have their results, and the status is 3; a rejected video says so."""
    assert main(["timeline", str(clips), "--labels", LABELS, "--background", "1.9", "--json", "--scores"]) == 3
    captured = capsys.readouterr()
    found = json.loads(captured.out)["videos"]
    assert [each["error"] is None for each in found] == [True, False, True]
    assert found[0]["timeline"]["segments"] == []
    assert len(found[0]["timeline"]["scores"][0]) == 2
    assert "page.mp4" in captured.err
    assert main(["timeline", str(clips / "one.mp4"), "--labels", LABELS, "--background", "0-3"]) == 0
    assert "none of these" in capsys.readouterr().out


@pytest.mark.heavy
def test_classify_rejects(clips: Path, capsys: Captured) -> None:
    """A video below the level is reported as showing none of the labels, in text and in CSV."""
    words = ["classify", str(clips / "one.mp4"), "--labels", LABELS, "--views", "1x1", "--reject", "1.9"]
    assert main(words) == 0
    assert capsys.readouterr().out.endswith("one.mp4\n  none of these\n")
    assert main([*words, "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("one.mp4,,,,,")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--background", "much"], "--background must be auto, a level"),
        (["--window", "0"], "--window"),
        (["--fps", "1", "--window", "2"], "give fps of at least 4"),
        (["--output", "t.avi"], "its suffix says the form"),
        (["--hop", "9"], "longer than a window"),
    ],
)
def test_bad_usage(words: list[str], expected: str, clips: Path, tmp_path: Path, capsys: Captured) -> None:
    """What cannot be done is refused in one line before a model is loaded."""
    try:
        status = main(["timeline", str(clips / "one.mp4"), "--labels", LABELS, *words])
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert expected in capsys.readouterr().err


def test_subtitles_are_of_one_video(clips: Path, tmp_path: Path, capsys: Captured) -> None:
    """Cues of several videos would be mixed."""
    assert main(["timeline", str(clips), "--labels", LABELS, "--output", str(tmp_path / "t.srt")]) == 2
    assert "one video" in capsys.readouterr().err


@pytest.mark.heavy
def test_eval_localization(clips: Path, tmp_path: Path, capsys: Captured) -> None:
    """Annotated videos are judged, one that is missing is named, and results are written."""
    segments = [{"label": "striped star", "segment": [0, 3]}, {"label": "plain red ring", "segment": [0, 1]}]
    entries = {name: {"subset": "validation", "annotations": segments} for name in ("one", "two", "three")}
    (tmp_path / "list.json").write_text(json.dumps({"database": entries}))
    words = ["eval", "--protocol", "localization", "--list", str(tmp_path / "list.json"), "--root", str(clips)]
    assert main([*words, "--window", "1", "--output", str(tmp_path / "out"), "--json"]) == 3
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["videos"], document["missing"], document["classes"]) == (2, 1, 2)
    assert set(document["map"]) == {"0.3", "0.5", "0.7"}
    assert "1 annotated videos are not there" in captured.err
    assert set(json.loads((tmp_path / "out" / "found.activitynet.json").read_text())["results"]) == {"one", "two"}
    assert main([*words[:5], "--background", "auto"]) == 2
