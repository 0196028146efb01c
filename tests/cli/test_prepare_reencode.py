"""``mote-fast prepare reencode``: copies, lists and reports from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mote_fast.cli.parsers import build_parser
from mote_fast.data.decoding.decode import probe
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.find_videos import FoundVideos
from mote_fast.data.items import read_list
from mote_fast.errors import ConfigError, ListError
from tests.data.conftest import NumberedVideos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "x").mkdir(parents=True)
    write_video(folder / "x" / "a.avi", NumberedVideos.draw(14), codec="mpeg4")
    write_video(folder / "b.webm", NumberedVideos.draw(9), codec="libvpx")
    return folder


def run(*arguments: object) -> int:
    """Parse and run like the program, without its error handling."""
    parsed = build_parser().parse_args(["prepare", "reencode", *map(str, arguments), "--workers", "1"])
    return parsed.run(parsed)


def test_a_tree(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All videos of the tree are re-encoded with the options; a second run has nothing to do."""
    out = tmp_path / "out"
    assert run(root, out, "--key-interval", 5, "--short-side", 32) == 0
    info = probe(out / "x" / "a.mp4")
    assert (info.num_frames, info.height, info.key_frames) == (14, 32, (0, 5, 10))
    assert "2 videos written, 0 were done before" in capsys.readouterr().out
    assert run(root, out, "--key-interval", 5, "--short-side", 32, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["written"], report["already_done"], report["failures"]) == (0, 2, [])


def test_a_list(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the list's videos; the new list names all copies, even a failed one; the status shows the failure."""
    (root / "bad.mp4").write_text("no video")
    (tmp_path / "val.txt").write_text("x/a.avi 4\nbad.mp4 2\n")
    assert run(root, tmp_path / "out", "--list", tmp_path / "val.txt") == 3
    assert not (tmp_path / "out" / "b.mp4").exists()
    items = read_list(tmp_path / "out" / "val.txt")
    assert [(item.path, item.label) for item in items] == [("x/a.mp4", 4), ("bad.mp4", 2)]
    assert "1 of 2 videos are damaged or missing" in capsys.readouterr().err


def test_an_unreadable_folder_is_reported(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other videos are written, and the status tells; a source without videos is refused."""
    found = FoundVideos(["b.webm"], ["x: cannot be read (Permission denied)"])
    monkeypatch.setattr("mote_fast.cli.prepare_reencode.find_videos", lambda _: found)
    assert run(root, tmp_path / "out") == 3
    assert (tmp_path / "out" / "b.mp4").exists()
    assert "error: x: cannot be read (Permission denied)" in capsys.readouterr().err
    monkeypatch.undo()
    with pytest.raises(ListError, match="none: no such folder"):
        run(root / "none", tmp_path / "other")


def test_lists_of_one_name_are_refused(root: Path, tmp_path: Path) -> None:
    """The second list would overwrite the first, after hours of work."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "val.txt").write_text("x/a.avi 4\n")
    one, two = (tmp_path / folder / "val.txt" for folder in ("one", "two"))
    with pytest.raises(ConfigError, match=r"val\.txt"):
        run(root, tmp_path / "out", "--list", one, two)
    with pytest.raises(ConfigError, match=r"val\.txt"):
        run(root, tmp_path / "out", "--list", one, "--list", two)
    assert not (tmp_path / "out").exists()
