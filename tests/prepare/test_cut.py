"""Cutting clips: complete or not at all, continued after an interruption, and failures named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote_fast.data.decoding.decode import probe
from mote_fast.errors import ConfigError
from mote_fast.prepare.cut import FAULT_FILE, Cut, cut_clips
from mote_fast.prepare.encoding import Span
from mote_fast.prepare.prepare_settings import Encoding
from tests.prepare.conftest import VideoMaker, write
from tests.prepare.conftest import make_video as make_video


@pytest.fixture
def source(tmp_path: Path, make_video: VideoMaker) -> Path:
    """One video of 24 frames at 12 a second, and one that is none."""
    make_video(tmp_path / "videos" / "a.mp4", frames=24)
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"not a video")
    return tmp_path / "videos"


CUTS = [
    Cut("a.mp4", "run/a_0.mp4", Span(0.0, 1.0)),
    Cut("a.mp4", "jump/a_1.mp4", Span(1.0, 1.5)),
    Cut("bad.mp4", "jump/bad.mp4", Span(0.0, 1.0)),
    Cut("a.mp4", "jump/a_9.mp4", Span(9.0, 10.0)),
]


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()}


@pytest.mark.heavy
def test_clips_and_failures(source: Path, tmp_path: Path) -> None:
    """Each clip has its part's frames; a bad one is named and stops no other; a second call does nothing again."""
    target = tmp_path / "clips"
    before = {path: path.read_bytes() for path in source.iterdir()}
    done = cut_clips(CUTS, source, target)
    assert (done.written, done.already_done) == (2, 0)
    assert [(failure.index, failure.path) for failure in done.failures] == [(2, "jump/bad.mp4"), (3, "jump/a_9.mp4")]
    assert "after its end" in done.failures[1].reason
    assert [probe(target / name).num_frames for name in ("run/a_0.mp4", "jump/a_1.mp4")] == [12, 6]
    assert len((target / FAULT_FILE).read_text().splitlines()) == 2
    assert names(target) == {"run/a_0.mp4", "jump/a_1.mp4", FAULT_FILE, ".cut.jsonl"}
    assert {path: path.read_bytes() for path in source.iterdir()} == before
    clip = (target / "run" / "a_0.mp4").read_bytes()
    again = cut_clips(CUTS, source, target)
    assert (again.written, again.already_done, len(again.failures)) == (0, 2, 2)
    assert (target / "run" / "a_0.mp4").read_bytes() == clip


@pytest.mark.heavy
def test_what_has_changed_is_cut_again(source: Path, tmp_path: Path, make_video: VideoMaker) -> None:
    """Another span, encoding or video, a clip that was removed or truncated, and a journal that was edited."""
    target = tmp_path / "clips"
    one = CUTS[:1]
    assert cut_clips(one, source, target).written == 1
    assert cut_clips([one[0]._replace(span=Span(0.0, 0.5))], source, target).written == 1
    assert cut_clips(one, source, target).written == 1
    assert cut_clips(one, source, target, Encoding(crf=30)).written == 1
    make_video(source / "a.mp4", frames=25)
    assert cut_clips(one, source, target, Encoding(crf=30)).written == 1
    clip = target / "run" / "a_0.mp4"
    clip.write_bytes(clip.read_bytes()[:-1])
    assert cut_clips(one, source, target, Encoding(crf=30)).written == 1
    clip.unlink()
    assert cut_clips(one, source, target, Encoding(crf=30)).written == 1
    assert cut_clips(one, source, target, Encoding(crf=30)).already_done == 1
    (target / ".cut.jsonl").write_text('{"name": "run/a_0.mp4"}\n')
    assert cut_clips(one, source, target, Encoding(crf=30)).written == 1


@pytest.mark.heavy
def test_remains_of_a_killed_run_are_removed(source: Path, tmp_path: Path) -> None:
    """Unfinished clips have names of their own; other hidden files stay."""
    target = tmp_path / "clips"
    write(target / "run" / ".a_0.mp4.12345678.part" / "content", "half a clip")
    write(target / "run" / ".mine.part", "not ours")
    cut_clips(CUTS[:1], source, target)
    assert names(target) == {"run/a_0.mp4", "run/.mine.part", ".cut.jsonl"}


def test_bad_arguments(source: Path, tmp_path: Path) -> None:
    """A clip that is named twice would be overwritten; a target that is a file cannot be written."""
    with pytest.raises(ConfigError, match="name them apart"):
        cut_clips([CUTS[0], CUTS[0]], source, tmp_path / "clips")
    with pytest.raises(ConfigError, match="cannot be read or written"):
        cut_clips(CUTS, source, source / "a.mp4")
    with pytest.raises(ConfigError, match="workers"):
        cut_clips(CUTS, source, tmp_path / "clips", workers=0)
