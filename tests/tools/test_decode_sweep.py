"""The sweep against a program that plays like FFmpeg's command line, or otherwise: the faults that it must find."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mote_fast.data import write_video
from tests.data.corpus.pictures import draw
from tests.data.corpus.recipes import Recipe
from tests.data.corpus.writing import write
from tools.decode_sweep import Row, Task, compare, find_videos, main
from tools.ffmpeg_player import FFmpeg, find_ffmpeg

COUNT = 12

# Writes pictures as FFmpeg does.
PROGRAM = """#!{python}
import sys, time
import av, numpy as np
if "-version" in sys.argv:
    print("ffmpeg version {version}.1 Copyright")
    raise SystemExit
path = sys.argv[sys.argv.index("-i") + 1]
limit = int(sys.argv[sys.argv.index("-frames:v") + 1])
{play}
{change}
for picture in pictures[:limit]:
    height, width = picture.shape[:2]
    sys.stdout.buffer.write(b"P6\\n%d %d\\n255\\n" % (width, height) + np.ascontiguousarray(picture).tobytes())
"""


PLAY = """
with av.open(path) as container:
    pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
"""


def program(folder: Path, change: str = "", version: int = 8, always: str = PLAY) -> FFmpeg:
    """A command that plays a video and then changes what it shows; ``always`` is what it does instead of playing."""
    path = folder / "ffmpeg"
    path.write_text(PROGRAM.format(python=sys.executable, version=version, play=always, change=change))
    path.chmod(0o755)
    found = find_ffmpeg(str(path))
    assert found is not None
    return found


@pytest.fixture
def video(tmp_path: Path) -> Path:
    folder = tmp_path / "archive" / "inner"
    folder.mkdir(parents=True)
    frames = np.stack([draw(number, 128, 96) for number in range(COUNT)])
    return Path(write_video(folder / "video.mp4", frames, g=4, bf=2))


def run(video: Path, ffmpeg: FFmpeg, max_frames: int = 100, time_limit: float = 60.0) -> Row:
    return compare(Task(str(video), ffmpeg, max_frames, time_limit))


@pytest.mark.parametrize(
    ("change", "version", "verdict", "is_silent"),
    [
        ("", 8, "equal", False),
        ("pictures[4], pictures[5] = pictures[5], pictures[4]", 8, "wrong picture", True),
        ("del pictures[0]", 8, "wrong picture", True),
        ("pictures.append(pictures[-1])", 8, "count differs", True),
        ("pictures.pop()", 8, "count differs", True),
        ("pictures.clear()", 8, "count differs", True),
        ("pictures = [picture[:, ::-1] for picture in pictures]", 8, "orientation differs", True),
        ("pictures = [picture[:, ::-1] for picture in pictures]", 5, "orientation differs", False),
        ("pictures = [np.rot90(picture) for picture in pictures]", 5, "orientation differs", False),
        ("pictures = [picture[::2] for picture in pictures]", 8, "size differs", True),
        ("pictures = [picture // 2 + 9 for picture in pictures]", 8, "colours differ", True),
        ("pictures = [picture // 2 * 2 for picture in pictures]", 8, "equal", False),
    ],
)
def test_each_difference_has_its_verdict(
    change: str, version: int, verdict: str, is_silent: bool, video: Path, tmp_path: Path
) -> None:
    """FFmpeg is made to play otherwise, which is the same as the library reading otherwise."""
    row = run(video, program(tmp_path, change, version))
    assert (row.verdict, row.is_silent) == (verdict, is_silent), row.detail


def test_an_old_ffmpeg_excuses_nothing_but_the_orientation(video: Path, tmp_path: Path) -> None:
    """Mirrored pictures in a wrong order are a silent difference."""
    change = "pictures = [picture[:, ::-1] for picture in pictures]; pictures.insert(0, pictures.pop())"
    row = run(video, program(tmp_path, change, 5))
    assert (row.verdict, row.is_silent) == ("wrong picture", True), row.detail


def test_a_long_video_is_compared_in_part_and_says_so(video: Path, tmp_path: Path) -> None:
    """``--max-frames`` bounds time and memory; the count is then unknown."""
    row = run(video, program(tmp_path), max_frames=5)
    assert (row.verdict, row.frames, row.counted) == ("equal", 5, COUNT)
    assert "first 5 frames" in row.detail


def test_an_endless_ffmpeg_is_stopped(video: Path, tmp_path: Path) -> None:
    """What a hanging program would have shown is not known, so the file does not pass."""
    row = run(video, program(tmp_path, "time.sleep(600)"), time_limit=2.0)
    assert (row.verdict, row.is_silent) == ("timeout", True)


def test_typed_errors_are_told_from_files_that_nobody_plays(video: Path, tmp_path: Path) -> None:
    """A refusal matters only where FFmpeg plays the file."""
    video.write_bytes(b"no video" * 100)
    assert run(video, program(tmp_path)).verdict == "neither plays"
    row = run(video, program(tmp_path, always="pictures = [np.zeros((4, 4, 3), np.uint8)]"))
    assert (row.verdict, row.is_silent) == ("typed error", False)


@pytest.mark.heavy
def test_a_folder_becomes_tables(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files below the folder with a video's suffix, or all; the exit status says whether one differs silently."""
    (video.parent / "notes.txt").write_text("no video")
    ffmpeg = program(tmp_path)
    folder = str(tmp_path / "archive")
    table = tmp_path / "sweep.csv"
    assert main([folder, "--ffmpeg", ffmpeg.path, "--output", str(table)]) == 0
    assert "1 files, 0 with a silent difference" in capsys.readouterr().out
    with table.open() as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["verdict"], row["frames"]) == (str(video), "equal", str(COUNT))
    assert main([folder, "--ffmpeg", ffmpeg.path, "--all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"equal": 1, "neither plays": 1}
    program(tmp_path, "pictures.reverse()")
    assert main([folder, "--ffmpeg", ffmpeg.path]) == 1
    assert "wrong picture" in capsys.readouterr().out


@pytest.mark.parametrize("program", ["no-such-program", "false"])
def test_without_ffmpeg_one_line_says_so(program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tool compares with a program that the library does not need, and that may lack its own libraries."""
    assert main([str(tmp_path), "--ffmpeg", program]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def ffmpeg() -> FFmpeg:
    found = find_ffmpeg("ffmpeg")
    if found is None:
        pytest.skip("no ffmpeg command here")
    return found


@pytest.mark.heavy
def test_generated_files_play_as_ffmpeg_plays_them(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """With FFmpeg's command line, where there is one: the tool and the corpus agree that nothing differs."""
    recipes = [
        Recipe("h264", "mp4", b_frames=3, orientation=6),
        Recipe("mpeg4", "avi", b_frames=2),
        Recipe("vp9", "webm", gop=250),
        Recipe("h264", "mp4", b_frames=3, lie="pts_is_dts"),
        Recipe("wmv2", "avi", lie="all_key"),
    ]
    for number, recipe in enumerate(recipes):
        row = run(write(recipe, tmp_path, str(number)), ffmpeg)
        assert not row.is_silent, (recipe, row)
        assert row.frames == recipe.frames


@pytest.mark.heavy
def test_real_clips_have_no_silent_difference(ffmpeg: FFmpeg, clips_dir: Path) -> None:
    """The damaged one among them may raise a typed error."""
    rows = [run(path, ffmpeg, max_frames=60, time_limit=600.0) for path in find_videos(clips_dir, every=False)]
    assert rows
    assert [row for row in rows if row.is_silent] == []
    assert {row.verdict for row in rows} <= {"equal", "typed error"}
