"""The videos of classify and embed: what names them, and results that come one by one."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from mote_fast.cli import main
from mote_fast.errors import UndecodableVideoError
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.results import Prediction, VideoEmbedding, VideoResult

Captured = pytest.CaptureFixture[str]

CLASSIFY = ("classify", "--labels", "a,b", "--views", "1x1", "--topk", "99")


def run(capsys: Captured, *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return (
        status,
        captured.out,
        "".join(line for line in captured.err.splitlines(keepends=True) if not line.startswith("note: ")),
    )


@pytest.fixture
def clips(tmp_path: Path, moving_video: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: two videos, one of them in a folder below, and something else."""
    (tmp_path / "clips" / "below").mkdir(parents=True)
    shutil.copy(moving_video, tmp_path / "clips" / "one.mp4")
    shutil.copy(moving_video, tmp_path / "clips" / "below" / "two.mp4")
    (tmp_path / "clips" / "notes.txt").write_text("no video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the model's work, to go through many videos; the names of the videos that it saw."""
    seen: list[str] = []

    def results(model: Any, videos: list[str], labels: list[str], **options: Any) -> Iterator[VideoResult]:
        for at, video in enumerate(videos):
            seen.append(video)
            if "stop" in video:
                raise KeyboardInterrupt
            error = UndecodableVideoError(video, "broken") if "bad" in video else None
            ranked = [] if error else [Prediction(label, place, 0.5) for place, label in enumerate(labels)]
            yield VideoResult(at, video, ranked, error)

    def embeddings(model: Any, videos: list[str], **options: Any) -> Iterator[VideoEmbedding]:
        vector = model.head.features(model.clip.logit_scale.new_ones(1, 8, model.clip.embed_dim))[0, 0].detach()
        for each in results(model, videos, []):
            yield VideoEmbedding(each.index, each.video, None if each.error else vector, each.error)

    monkeypatch.setattr(VideoClassifier, "stream_results", results)
    monkeypatch.setattr(VideoClassifier, "stream_embeddings", embeddings)
    return seen


def files(*names: str) -> list[str]:
    """Make empty files, for a model whose work is replaced."""
    for name in names:
        Path(name).touch()
    return list(names)


def names(out: str) -> list[str]:
    return [video["video"] for video in json.loads(out)["videos"]]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["clips"], ["clips/below/two.mp4", "clips/one.mp4"]),
        (["clips/*.mp4", "clips/below"], ["clips/one.mp4", "clips/below/two.mp4"]),
        (["clips/**/*.mp4"], ["clips/below/two.mp4", "clips/one.mp4"]),
        (["clips/one.mp4", "--list", "list.txt"], ["clips/one.mp4", "clips/below/two.mp4", "clips/one.mp4"]),
    ],
)
def test_folders_patterns_and_lists(
    clips: Path, said: list[str], capsys: Captured, words: list[str], found: list[str]
) -> None:
    """A folder is all videos below it, a quoted pattern its files, and --list the lines of a file."""
    (clips / "list.txt").write_text("clips/below/two.mp4\nclips/one.mp4\n")
    status, out, _ = run(capsys, *CLASSIFY, *words, "--json")
    assert (status, names(out), said) == (0, found, found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["https://example.org/a.mp4"], "fetch the video"),
        (["empty"], "empty: holds no videos"),
        (["clips/*.mkv"], "no file matches"),
        (["nosuch.mp4"], "nosuch.mp4: no such file"),
        (["nosuch.mp4", "nor.mp4"], "nor are the other 1 there"),
        (["--list", "nosuch.txt"], "nosuch.txt"),
        (["clips/one.mp4", "--output", "out.xml"], "its suffix says the form; give one of .json, .jsonl, .csv, .txt"),
        (["clips/one.mp4", "--output", "clips/notes.txt/out.csv"], "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_before_a_model_is_loaded(
    clips: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    """One line, status 2, and nothing is fetched or built."""
    (clips / "empty").mkdir()
    monkeypatch.setattr("mote_fast.cli.inputs.whole_model", lambda arguments: pytest.fail("a model was loaded"))
    status, out, err = run(capsys, *CLASSIFY, *words)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert message in err


def test_a_missing_video_costs_itself_alone(clips: Path, said: list[str], capsys: Captured) -> None:
    """It is reported first, the others are judged, and the status says that some videos failed."""
    files("bad.mp4")
    status, out, err = run(capsys, *CLASSIFY, "clips/one.mp4", "none.mp4", "bad.mp4", "clips/one.mp4", "--json")
    assert status == 3
    assert [bool(video["error"]) for video in json.loads(out)["videos"]] == [False, True, True, False]
    assert [line.split(":")[2].strip() for line in err.splitlines()] == ["none.mp4", "bad.mp4"]
    assert "none.mp4" not in said


def test_forms(clips: Path, said: list[str], capsys: Captured) -> None:
    """Text, JSON lines and CSV have the same results, on standard output and in a file with the suffix."""
    videos = files("a.mp4", "bad.mp4", "c.mp4")
    shown = {form: run(capsys, *CLASSIFY, *videos, *form)[1] for form in ((), ("--jsonl",), ("--csv",), ("--json",))}
    for form, suffix in (((), ".txt"), (("--jsonl",), ".jsonl"), (("--csv",), ".csv"), (("--json",), ".json")):
        path = clips / "new" / f"results{suffix}"
        status, out, _ = run(capsys, *CLASSIFY, *videos, "--output", path)
        assert (status, out) == (3, f"{path}: 2 of 3 videos\n")
        assert path.read_text() == shown[form]
    rows = list(csv.DictReader(io.StringIO(shown["--csv",])))
    assert [(row["video"], row["rank"], row["label"]) for row in rows] == [
        ("a.mp4", "1", "a"),
        ("a.mp4", "2", "b"),
        ("bad.mp4", "", ""),
        ("c.mp4", "1", "a"),
        ("c.mp4", "2", "b"),
    ]
    document = json.loads(shown["--json",])
    lines = [json.loads(line) for line in shown["--jsonl",].splitlines()]
    assert lines == [{"checkpoint": document["checkpoint"], **video} for video in document["videos"]]
    assert shown[()].count("50.00 %") == 4


@pytest.mark.parametrize("form", ["--jsonl", "--csv", "--json", None])
def test_ctrl_c_keeps_what_is_done(clips: Path, said: list[str], capsys: Captured, form: str | None) -> None:
    """Results so far are complete in every form, also in the file; the status is 130."""
    videos = files("a.mp4", "b.mp4", "stop.mp4", "d.mp4")
    words = [*CLASSIFY, *videos, "--output", "out.jsonl", *([form] if form else [])]
    status, out, err = run(capsys, *words)
    assert (status, err) == (130, "mote-fast: interrupted\n")
    assert [json.loads(line)["video"] for line in Path("out.jsonl").read_text().splitlines()] == ["a.mp4", "b.mp4"]
    if form == "--json":
        assert names(out) == ["a.mp4", "b.mp4"]
    elif form == "--jsonl":
        assert len(out.splitlines()) == 2
    elif form == "--csv":
        assert len(out.splitlines()) == 5


def test_results_come_one_by_one(clips: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is printed before the next video is judged."""
    printed: list[int] = []

    def results(model: Any, videos: list[str], labels: list[str], **options: Any) -> Iterator[VideoResult]:
        for at, video in enumerate(videos):
            printed.append(len(capsys.readouterr().out.splitlines()))
            yield VideoResult(at, video, [Prediction("a", 0, 1.0)])

    monkeypatch.setattr(VideoClassifier, "stream_results", results)
    assert run(capsys, *CLASSIFY, *files("a.mp4", "b.mp4", "c.mp4"))[0] == 0
    assert printed == [0, 2, 2]


def test_embeddings_by_suffix(clips: Path, said: list[str], capsys: Captured) -> None:
    """Every form has the same vectors; files have the permissions of new files; a failed video has NaN or no vector."""
    videos = files("a.mp4", "bad.mp4", "c.mp4")
    before = os.umask(0o027)
    try:
        for suffix in (".safetensors", ".npy", ".csv", ".jsonl", ".json"):
            status, out, _ = run(capsys, "embed", *videos, "--output", f"v{suffix}")
            assert (status, out) == (3, f"v{suffix}: 2 of 3 videos\n")
            assert Path(f"v{suffix}").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)
    rows = np.load("v.npy")
    assert rows.dtype == np.float32
    assert np.isnan(rows).any(1).tolist() == [False, True, False]
    vectors = load_file("v.safetensors")
    assert sorted(vectors) == ["a.mp4", "c.mp4"]
    assert np.array_equal(vectors["c.mp4"], rows[2])
    lines = [json.loads(line) for line in Path("v.jsonl").read_text().splitlines()]
    assert np.array_equal(np.float32(lines[0]["embedding"]), rows[0])
    assert lines[1]["embedding"] is None
    header, first, failed, _ = csv.reader(Path("v.csv").read_text().splitlines())
    assert np.array_equal(np.float32(first[2:]), rows[0])
    assert header[:3] == ["video", "error", "0"]
    assert "broken" in failed[1]
    assert run(capsys, "embed", *videos, "--output", "v.pt")[0] == 2


def test_several_real_videos(clips: Path, capsys: Captured) -> None:
    """Without replacements: decoded in processes of their own, the scores are those of one video alone."""
    _, alone, _ = run(capsys, *CLASSIFY, "clips/one.mp4", "--jsonl")
    status, both, _ = run(capsys, *CLASSIFY, "clips", "--jsonl")
    below, one = (json.loads(line) for line in both.splitlines())
    assert status == 0
    assert one == json.loads(alone)
    assert below["predictions"] == one["predictions"]


def test_labels_of_standard_input(clips: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """One a line, for both options; nothing there is an error."""
    for option in ("--labels", "--labels-file"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"archery\n\n jeu de paume\n")))
        status, out, _ = run(capsys, "classify", "clips/one.mp4", option, "-", "--views", "1x1", "--jsonl")
        assert status == 0
        assert {each["label"] for each in json.loads(out)["predictions"]} == {"archery", "jeu de paume"}
    for content, words in ((b"\n", "holds no class names"), (b"\xff", "not UTF-8")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        status, _, err = run(capsys, "classify", "clips/one.mp4", "--labels", "-")
        assert status == 2
        assert words in err
