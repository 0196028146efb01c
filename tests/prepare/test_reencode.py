"""Re-encoding a tree: same folders, resumable, originals unchanged, damaged videos named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mote_fast.data.decoding.decode import probe
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.find_videos import find_videos
from mote_fast.data.items import read_list
from mote_fast.errors import ConfigError, ListError
from mote_fast.prepare.prepare_settings import Encoding
from mote_fast.prepare.reencode import (
    FAULT_FILE,
    JOURNAL_FILE,
    listed_videos,
    reencode,
    rewrite_list,
    target_names,
)
from tests.data.conftest import NumberedVideos
from tests.prepare.conftest import VideoMaker, touch, write


@pytest.fixture
def tree(tmp_path: Path, make_video: VideoMaker) -> Path:
    """Four videos, one damaged; two that differ only in their suffix; and a file that is not a video."""
    root = tmp_path / "videos"
    for name in ("jump/a.avi", "jump/a.mkv", "run/b c.mp4"):
        make_video(root / name)
    write(root / "run" / "bad.mp4", "no video")
    write(root / "run" / "notes.txt", "notes")
    return root


def states(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder, with its modification time and content."""
    files = (Path(at, name) for at, _, names in os.walk(folder) for name in names)
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_mirrors_a_tree(tree: Path, tmp_path: Path) -> None:
    """The same folders, one output per video, the damaged video named, the originals unchanged."""
    before, out = states(tree), tmp_path / "out"
    done = reencode(tree, out, find_videos(tree).paths, workers=2)
    assert (done.written, done.already_done) == (3, 0)
    assert states(tree) == before
    videos = {"jump/a.avi.mp4", "jump/a.mkv.mp4", "run/b c.mp4"}
    assert states(out).keys() == videos | {FAULT_FILE, JOURNAL_FILE}
    for name in videos:
        assert probe(out / name).num_frames == 12
    (failure,) = done.failures
    assert (failure.path, failure.kind) == ("run/bad.mp4", "UndecodableVideoError")
    (line,) = (out / FAULT_FILE).read_text().splitlines()
    assert json.loads(line)["path"] == "run/bad.mp4"


def test_a_size_that_cannot_be_encoded_costs_its_video_alone(tmp_path: Path) -> None:
    """x264 supports at most 16,384 pixels per row; the other videos are written."""
    root = tmp_path / "videos"
    root.mkdir()
    frames = np.zeros((2, 16, 20_000, 3), np.uint8)
    write_video(root / "a.mkv", frames, codec="ffv1")
    write_video(root / "b.mp4", frames[:, :, :32])
    done = reencode(root, tmp_path / "out", find_videos(root).paths)
    assert done.written == 1
    (failure,) = done.failures
    assert (failure.path, failure.kind) == ("a.mkv", "UndecodableVideoError")
    assert "cannot be written as H.264" in failure.reason


def test_a_second_call_does_what_is_left(tree: Path, tmp_path: Path, make_video: VideoMaker) -> None:
    """Only changed videos, missing targets and failed videos are encoded again."""
    out = tmp_path / "out"
    videos = find_videos(tree).paths
    reencode(tree, out, videos)
    first = states(out)
    make_video(tree / "jump" / "a.avi", frames=15)
    (out / "jump" / "a.mkv.mp4").unlink()
    make_video(tree / "run" / "bad.mp4")
    done = reencode(tree, out, videos)
    assert (done.written, done.already_done, done.failures) == (3, 1, ())
    assert not (out / FAULT_FILE).exists()
    second = states(out)
    assert second["run/b c.mp4"] == first["run/b c.mp4"]
    assert probe(out / "jump" / "a.mkv.mp4").num_frames == probe(tree / "jump" / "a.mkv").num_frames
    assert probe(out / "jump" / "a.avi.mp4").num_frames == 15
    assert reencode(tree, out, videos).already_done == 4


def test_other_options_do_it_again(tree: Path, tmp_path: Path) -> None:
    """Otherwise a tree could mix two qualities or key intervals."""
    videos = ["run/b c.mp4"]
    reencode(tree, tmp_path / "out", videos)
    done = reencode(tree, tmp_path / "out", videos, Encoding(key_interval=3))
    assert done.written == 1
    assert probe(tmp_path / "out" / "run" / "b c.mp4").key_frames == (0, 3, 6, 9)


def test_an_interrupted_output_is_not_seen(tree: Path, tmp_path: Path) -> None:
    """A killed process's partial file is removed, and a target without a record is written again."""
    out = tmp_path / "out"
    write(out / "run" / ".b c.mp4.12345678.part" / "content", "half")
    write(out / "run" / "b c.mp4", "of somebody else")
    assert reencode(tree, out, ["run/b c.mp4"]).written == 1
    assert [path.name for path in (out / "run").iterdir()] == ["b c.mp4"]
    assert probe(out / "run" / "b c.mp4").num_frames == 12


def test_kept_parts_stay_reported(tree: Path, tmp_path: Path) -> None:
    """Every call names a video of which only the beginning was kept."""
    NumberedVideos.put_index_first(NumberedVideos(tmp_path).write("whole.mp4"), tree / "cut.mp4")
    data = (tree / "cut.mp4").read_bytes()
    (tree / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])
    for _ in range(2):
        done = reencode(tree, tmp_path / "out", ["cut.mp4"], keep_intact_prefix=True)
        (failure,) = done.failures
        assert "kept the" in failure.reason
    assert done.already_done == 1
    assert 0 < probe(tmp_path / "out" / "cut.mp4").num_frames < 40


def test_names_do_not_collide(tmp_path: Path) -> None:
    """Videos that differ only in their suffix keep it, for any requested ones."""
    touch(tmp_path, "x/a.avi", "x/a.mkv", "x/b.avi", "y/a.webm", "x/notes.txt")
    assert target_names(tmp_path, ["x/a.avi", "x/b.avi", "y/a.webm"]) == {
        "x/a.avi": "x/a.avi.mp4",
        "x/b.avi": "x/b.mp4",
        "y/a.webm": "y/a.mp4",
    }
    touch(tmp_path, "x/a.avi.flv")
    with pytest.raises(ConfigError, match=r"a\.avi.*would both become x/a\.avi\.mp4"):
        target_names(tmp_path, ["x/a.avi", "x/a.avi.flv"])


def test_the_target_lies_elsewhere(tree: Path, tmp_path: Path) -> None:
    """The next call would take outputs among the originals for originals."""
    for target in (tree, tree / "out", tmp_path):
        with pytest.raises(ConfigError, match="outside"):
            reencode(tree, target, ["run/b c.mp4"])


def test_lists_follow_their_videos(tmp_path: Path) -> None:
    """Every line keeps its position, so that indices stay valid; other columns of a CSV are kept too."""
    names = {"a b.avi": "a b.mp4", "x/c.mkv": "x/c.mkv.mp4"}
    plain = write(tmp_path / "list.txt", "a b.avi 3\n./x/c.mkv 0\n")
    table = write(tmp_path / "list.csv", 'id,path,label\n7,"a b.avi",3\n8,x/c.mkv,0\n')
    assert listed_videos(plain) == list(names)
    assert rewrite_list(plain, names) == "a b.mp4 3\nx/c.mkv.mp4 0\n"
    assert rewrite_list(table, names) == "id,path,label\n7,a b.mp4,3\n8,x/c.mkv.mp4,0\n"
    noted = write(tmp_path / "noted.csv", 'Note, Path ,label\n"a, b",x/c.mkv,0\n')
    assert rewrite_list(noted, names) == 'Note, Path ,label\n"a, b",x/c.mkv.mp4,0\n'
    rewritten = write(tmp_path / "new.csv", rewrite_list(table, names))
    assert [item.label for item in read_list(rewritten)] == [item.label for item in read_list(table)]
    with pytest.raises(ListError, match="not among"):
        rewrite_list(plain, {})


@pytest.mark.parametrize("line", ["../a.mp4 0", "/a.mp4 0", "folder 12 0"])
def test_lists_that_lead_elsewhere_are_refused(tmp_path: Path, line: str) -> None:
    """An output would be outside the target, or replace a folder of frames."""
    with pytest.raises(ListError, match=r"list\.txt"):
        listed_videos(write(tmp_path / "list.txt", line + "\n"))


def test_long_and_missing_names_are_single_failures(tmp_path: Path, make_video: VideoMaker) -> None:
    """A name as long as a file system takes is encoded; one whose copy's name is longer, and a missing one, fail."""
    root, out = tmp_path / "videos", tmp_path / "out"
    longest, longer = "n" * 251 + ".mp4", "o" * 250 + ".avi"
    make_video(root / longest)
    make_video(root / "o.avi")
    (root / "o.avi").rename(root / longer)
    # Of the same name but for the suffix, so that the copy keeps both.
    (root / ("o" * 250 + ".mkv")).touch()
    done = reencode(root, out, [longest, longer, "none.mp4"])
    assert done.written == 1
    assert probe(out / longest).num_frames == 12
    assert [(failure.path, failure.kind) for failure in done.failures] == [
        (longer, "UndecodableVideoError"),
        ("none.mp4", "MissingVideoError"),
    ]
    assert "rename it" in done.failures[0].reason
