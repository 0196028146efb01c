"""Scanning videos: results, crashes, and resumption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mote_fast.errors import ConfigError
from mote_fast.prepare import scan
from mote_fast.prepare.prepare_settings import ScanOptions
from mote_fast.prepare.scan import Scanned, scan_videos
from tests.prepare.conftest import FRAMES, VideoMaker

really_scan = scan._scan


def scan_or_die(task: Any) -> Scanned:
    """Simulates a decoder that crashes or hangs on some files."""
    if "crash" in task.path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in task.path:
        signal.pause()
    return really_scan(task)


def scan_unless_good(task: Any) -> Scanned:
    """Fails on videos that are already done."""
    assert "good" not in task.path
    return really_scan(task)


def test_sound_and_bad_videos(tmp_path: Path, make_video: VideoMaker) -> None:
    """Readable videos have their properties; damaged, foreign and missing files have a reason."""
    make_video(tmp_path / "a b" / "sound é.avi")
    make_video(tmp_path / "one.mp4", frames=1)
    whole = make_video(tmp_path / "whole.avi", frames=40).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "text.mp4").write_bytes(b"not a video at all")
    paths = ["a b/sound é.avi", "one.mp4", "cut.avi", "text.mp4", "gone.mp4"]
    found = scan_videos(tmp_path, paths, tmp_path / "out" / "scan.jsonl", ScanOptions(workers=2))
    assert list(found) == paths
    assert found["a b/sound é.avi"] == Scanned(num_frames=FRAMES, width=48, height=32, fps=12.0, codec="mpeg4")
    assert found["one.mp4"].num_frames == 1
    assert not found["one.mp4"].kind
    assert found["cut.avi"].kind or found["cut.avi"].cut_short
    assert (found["text.mp4"].kind, found["gone.mp4"].kind) == ("UndecodableVideoError", "MissingVideoError")
    assert "not a video" in found["text.mp4"].reason


def test_damage_inside_is_decoded(tmp_path: Path, make_video: VideoMaker) -> None:
    """Zeros in the middle of a file are found by decoding frames, not by reading packets."""
    content = bytearray(make_video(tmp_path / "v.avi", frames=24).read_bytes())
    start = content.index(b"movi")
    packets = [at for at in range(start, len(content)) if content[at : at + 4] == b"00dc"][2:10]
    for at in packets:
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        content[at + 8 : at + 8 + size] = bytes(size)
    (tmp_path / "v.avi").write_bytes(content)
    shallow = scan_videos(tmp_path, ["v.avi"], tmp_path / "shallow.jsonl", ScanOptions(frames=0))
    deep = scan_videos(tmp_path, ["v.avi"], tmp_path / "deep.jsonl", ScanOptions(frames=8))
    assert not shallow["v.avi"].kind
    assert deep["v.avi"].kind == "UndecodableVideoError"


@pytest.mark.heavy
def test_crashes_and_hangs_cost_only_their_file(
    tmp_path: Path, make_video: VideoMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file that kills or hangs its process is marked, and all other files are scanned."""
    monkeypatch.setattr(scan, "_scan", scan_or_die)
    names = ["crash1.avi", "good1.avi", "hang.avi", "crash2.avi", "good2.avi", "good3.avi"]
    for name in names:
        make_video(tmp_path / name)
    options = ScanOptions(workers=2, time_limit=6.0)
    found = scan_videos(tmp_path, names, tmp_path / "scan.jsonl", options)
    kinds = {name: each.kind for name, each in found.items()}
    assert kinds == {
        "crash1.avi": "DecoderCrash",
        "good1.avi": "",
        "hang.avi": "DecoderTimeout",
        "crash2.avi": "DecoderCrash",
        "good2.avi": "",
        "good3.avi": "",
    }


def test_what_failed_is_tried_again(tmp_path: Path, make_video: VideoMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk or lack of memory may be temporary, so failures are retried; readable videos are not."""
    make_video(tmp_path / "good.avi")
    make_video(tmp_path / "crash.avi")
    monkeypatch.setattr(scan, "_scan", scan_or_die)
    names = ["good.avi", "crash.avi"]
    found = scan_videos(tmp_path, names, tmp_path / "scan.jsonl", ScanOptions())
    assert [found[name].kind for name in names] == ["", "DecoderCrash"]
    monkeypatch.setattr(scan, "_scan", scan_unless_good)
    found = scan_videos(tmp_path, names, tmp_path / "scan.jsonl", ScanOptions())
    assert [found[name].num_frames for name in names] == [FRAMES, FRAMES]


def test_an_interrupted_scan_continues(tmp_path: Path, make_video: VideoMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill in the middle of a line, only videos without a record are scanned."""
    names = ["a.avi", "b.avi", "c.avi"]
    for name in names:
        make_video(tmp_path / name)
    journal = tmp_path / "scan.jsonl"
    found = scan_videos(tmp_path, names, journal, ScanOptions())
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1] + lines[2][:20])
    done = [json.loads(line)["name"] for line in lines[:2]]
    missing = next(name for name in names if name not in done)
    scanned: list[str] = []

    def note(function: Any, tasks: Any, *rest: Any) -> Any:
        scanned.extend(task.path for task in tasks)
        return real_run_each(function, tasks, *rest)

    real_run_each = scan.run_each
    monkeypatch.setattr(scan, "run_each", note)
    assert scan_videos(tmp_path, names, journal, ScanOptions()) == found
    assert scanned == [missing]
    assert len(journal.read_bytes().splitlines()) == 3


DIES_AFTER_ONE = """
import os, signal, sys
from pathlib import Path
from mote_fast.prepare.journal import Journal
from mote_fast.prepare.scan import ScanOptions, scan_videos

append = Journal.append

def append_and_die(journal, name, **content):
    append(journal, name, **content)
    os.kill(os.getpid(), signal.SIGKILL)

Journal.append = append_and_die
scan_videos(Path(sys.argv[1]), sys.argv[3:], Path(sys.argv[2]), ScanOptions())
"""


@pytest.mark.slow
def test_a_killed_scan_leaves_its_journal(tmp_path: Path, make_video: VideoMaker) -> None:
    """kill -9 keeps every finished result, and leaves no lock on the journal."""
    names = ["a.avi", "b.avi", "c.avi"]
    for name in names:
        make_video(tmp_path / name)
    journal = tmp_path / "scan.jsonl"
    command = [sys.executable, "-c", DIES_AFTER_ONE, str(tmp_path), str(journal), *names]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    first = journal.read_bytes()
    assert first.count(b"\n") == 1
    found = scan_videos(tmp_path, names, journal, ScanOptions())
    assert [each.num_frames for each in found.values()] == [FRAMES] * 3
    assert journal.read_bytes().startswith(first)
    assert journal.read_bytes().count(b"\n") == 3


def test_a_changed_file_is_scanned_again(tmp_path: Path, make_video: VideoMaker) -> None:
    """The record includes size, modification time and number of decoded frames."""
    journal = tmp_path / "scan.jsonl"
    make_video(tmp_path / "a.avi")
    assert scan_videos(tmp_path, ["a.avi"], journal, ScanOptions())["a.avi"].num_frames == FRAMES
    make_video(tmp_path / "a.avi", frames=FRAMES + 5)
    os.utime(tmp_path / "a.avi", ns=(time.time_ns(), time.time_ns() + 1))
    assert scan_videos(tmp_path, ["a.avi"], journal, ScanOptions())["a.avi"].num_frames == FRAMES + 5
    scan_videos(tmp_path, ["a.avi"], journal, ScanOptions(frames=3))
    assert len(journal.read_bytes().splitlines()) == 3


@pytest.mark.parametrize(("num_frames", "count"), [(1, 1), (1, 8), (2, 8), (7, 8), (300, 8), (300, 1), (5, 2)])
def test_frames_to_decode(num_frames: int, count: int) -> None:
    """Indices are in range, distinct, at most as many as requested, with the last and, of several, the first."""
    indices = scan._spread(num_frames, count)
    assert indices == sorted(set(indices))
    assert len(indices) <= count
    assert indices[-1] == num_frames - 1
    assert indices[0] == 0 or count == 1
    if num_frames >= count:
        assert len(indices) == count


@pytest.mark.parametrize("bad", [{"workers": 0}, {"frames": -1}, {"min_frames": 0}, {"time_limit": 0.0}])
def test_options_out_of_range(bad: dict[str, Any]) -> None:
    """The message names the options."""
    with pytest.raises(ConfigError, match="--workers"):
        ScanOptions(**bad)
