"""mote-fast index and search: from videos to what is found; faults cost themselves; what cannot be is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mote_fast.cli import main
from mote_fast.search.index_record import RECORD_FILE

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def clips(tmp_path: Path, moving_video: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: two videos, and a file that is none."""
    (tmp_path / "clips").mkdir()
    shutil.copy(moving_video, tmp_path / "clips" / "one.mp4")
    shutil.copy(moving_video, tmp_path / "clips" / "two.mp4")
    (tmp_path / "clips" / "bad.mp4").write_bytes(b"no video")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "clips"


def run(capsys: Captured, *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if not line.startswith("note: ")]
    return status, captured.out, "\n".join(errors)


@pytest.mark.heavy
def test_build_search_and_change(capsys: Captured, clips: Path) -> None:
    """One index from its first video to its last; bad and missing videos are named, and the status is then 3."""
    status, out, err = run(capsys, "index", "build", "videos", "clips", "nowhere.mp4", "--json")
    assert (status, "bad.mp4" in err, "nowhere.mp4" in err) == (3, True, True)
    found = json.loads(out)
    assert (found["added"], found["skipped"], found["rows"], found["model"]) == (2, 0, 2, "tiny")
    assert [Path(each["video"]).name for each in found["failed"]] == ["nowhere.mp4", "bad.mp4"]

    # Again, from another way to name the videos.
    status, out, _ = run(capsys, "index", "build", "videos", "clips/one.mp4", clips / "two.mp4")
    assert (status, out) == (0, "videos: 0 videos added, 2 were there, 0 failed; 2 rows\n")
    shutil.copy(clips / "one.mp4", clips / "three.mp4")
    assert run(capsys, "index", "add", "videos", "clips/three.mp4")[0] == 0
    status, out, _ = run(capsys, "index", "add", "videos", "clips/three.mp4", "--replace")
    assert (status, out) == (0, "videos: 1 videos added, 0 were there, 0 failed; 3 rows\n")

    status, out, _ = run(capsys, "search", "videos", "plain blue square", "--topk", 2)
    assert status == 0
    assert [line.split("  ")[-1] for line in out.splitlines()] == [str(clips / "one.mp4"), str(clips / "two.mp4")]
    status, out, _ = run(capsys, "search", "videos", "--like", "clips/one.mp4", "--json")
    hits = json.loads(out)["hits"]
    assert [Path(hit["path"]).name for hit in hits] == ["one.mp4", "two.mp4", "three.mp4"]
    assert hits[0]["score"] == pytest.approx(1, abs=1e-3)
    Path("templates.txt").write_text("a video of {}.\n{} again\n", encoding="utf-8")
    assert run(capsys, "search", "videos", "square", "--templates", "templates.txt")[0] == 0

    status, out, _ = run(capsys, "index", "delete", "videos", "clips/two.mp4", "--json")
    assert (status, json.loads(out)["rows"]) == (0, 2)
    status, out, _ = run(capsys, "index", "info", "videos", "--json")
    about = json.loads(out)
    assert (status, about["rows"], about["model"], about["dimension"]) == (0, 2, "tiny", 64)
    assert about["embedding"]["features"] == "temporal"
    assert "model tiny" in run(capsys, "index", "info", "videos")[1]


@pytest.mark.heavy
@pytest.mark.usefixtures("clips")
def test_what_cannot_be_is_refused(capsys: Captured) -> None:
    """One line that says what to do, and the status 2; the index stays as it is."""
    assert run(capsys, "index", "build", "videos", "clips/one.mp4")[0] == 0
    before = Path("videos", RECORD_FILE).read_bytes()
    for words, message in (
        (("index", "build", "videos", "clips/one.mp4", "--views", "3x1"), "--views 3x1: videos has 1x1"),
        (("index", "build", "clips", "clips/one.mp4"), "holds other files"),
        (("index", "build", "new"), "give videos"),
        (("index", "build", "new", "nowhere.mp4"), "nowhere.mp4"),
        (("index", "add", "new", "clips/one.mp4"), "index build"),
        (("index", "add", "videos", "clips/two.mp4", "--model", "ViT-test"), "belongs to the model 'tiny'"),
        (("index", "add", "videos", "clips/two.mp4", "--frames", 4), "embedded with frames=8"),
        (("index", "delete", "videos", "nowhere.mp4"), "no row with the id"),
        (("index", "info", "clips"), "no index.json"),
        (("search", "videos"), '"WORDS", or --like'),
        (("search", "videos", "words", "--like", "clips/one.mp4"), '"WORDS", or --like'),
        (("search", "videos", "--like", "clips/one.mp4", "--templates", "t.txt"), "--templates"),
        (("search", "videos", "--like", "clips/bad.mp4"), "bad.mp4"),
        (("search", "videos", " "), "blank"),
        (("search", "videos", "words", "--model", "ViT-test"), "belongs to the model 'tiny'"),
        (("search", "nowhere", "words"), "index build"),
    ):
        status, out, err = run(capsys, *words)
        assert (status, out) == (2, ""), words
        assert message in err, words
        assert len(err.splitlines()) <= 2, words
    assert Path("videos", RECORD_FILE).read_bytes() == before
    assert not Path("new").exists()
