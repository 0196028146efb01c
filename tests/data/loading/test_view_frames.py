"""Frames of views, read in this process and in a watched one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from mote_fast.data.decoding import video_info
from mote_fast.data.decoding.decode import probe
from mote_fast.data.loading import view_frames
from mote_fast.data.loading.view_frames import ViewRequest, read_view_frames
from mote_fast.data.transforms import Preprocessing
from mote_fast.data.views import Views
from mote_fast.errors import MissingVideoError, UndecodableVideoError
from mote_fast.runtime.workers import WorkerPool
from tests.data.bombs import png, repeated_picture

if TYPE_CHECKING:
    from tests.data.conftest import NumberedVideos

REQUEST = ViewRequest(4, Views(2, 1), Preprocessing(32), 8)


@pytest.fixture
def video(numbered_videos: NumberedVideos) -> Path:
    return numbered_videos.write("views.mp4")


@pytest.mark.heavy
def test_a_watched_process_reads_the_same(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames, views and size are equal, for a path, a path relative to the current folder, and bytes."""
    here = read_view_frames(str(video), REQUEST)
    monkeypatch.chdir(video.parent)
    for source in (str(video), video.name, video.read_bytes()):
        there = read_view_frames(source, REQUEST, 60.0)
        assert torch.equal(there.frames, here.frames)
        assert torch.equal(there.plan.frame_indices, here.plan.frame_indices)
        assert torch.equal(there.plan.positions, here.plan.positions)
        assert (there.displayed, there.stand_ins) == (here.displayed, here.stand_ins)
        assert there.path == ("<bytes>" if isinstance(source, bytes) else source)
    there.frames[:] = 0
    assert torch.equal(read_view_frames(video.name, REQUEST, 60.0).frames, here.frames)


@pytest.mark.heavy
def test_limits_share_their_processes(video: Path) -> None:
    """A program that takes other limits, one after another, does not collect processes."""
    for limit in (60.0, 61.0, 62.0):
        read_view_frames(str(video), REQUEST, limit)
    assert sum(child.name == "mote-fast-worker" for child in multiprocessing.active_children()) == 1


@pytest.mark.heavy
def test_errors_are_those_of_this_process(tmp_path: Path) -> None:
    """The caller sees the same typed error."""
    with pytest.raises(MissingVideoError, match=r"gone\.mp4"):
        read_view_frames(str(tmp_path / "gone.mp4"), REQUEST, 60.0)
    with pytest.raises(UndecodableVideoError, match="<bytes>"):
        read_view_frames(b"no video", REQUEST, 60.0)


@pytest.mark.heavy
def test_a_video_that_takes_too_long_is_given_up(tmp_path: Path, video: Path) -> None:
    """A small file can hold an hour of decoding; the next video is read."""
    bomb = repeated_picture(tmp_path / "bomb.mp4", png(8000, 8000), 10_000, 8000, 8000)
    assert bomb.stat().st_size < 200_000
    with pytest.raises(UndecodableVideoError, match=r"bomb\.mp4: decoding it took over 2 s"):
        read_view_frames(str(bomb), REQUEST, 2.0)
    assert len(read_view_frames(str(video), REQUEST, 2.0).frames)


def test_a_pass_has_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process the work of one file is bounded too."""
    monkeypatch.setattr(video_info.DecodeBudget.__init__, "__defaults__", (64 * 48 * 30,))
    with pytest.raises(UndecodableVideoError, match="takes too much decoding"):
        probe(repeated_picture(tmp_path / "bomb.mp4", png(64, 48), 31, 64, 48))
    assert probe(repeated_picture(tmp_path / "short.mp4", png(64, 48), 30, 64, 48)).num_frames == 30


def test_a_video_that_takes_too_much_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process at its limit (``test_workers.py``) fails to allocate, which is the video's fault."""

    def exhaust(source: str, request: ViewRequest) -> None:
        raise MemoryError

    monkeypatch.setattr(view_frames, "_read", exhaust)
    with pytest.raises(UndecodableVideoError, match=r"a\.mp4: decoding it takes more than 5120 MiB"):
        view_frames._serve(("a.mp4", REQUEST, os.getcwd()))


def crash(task: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_a_crash_of_the_decoder_costs_its_video(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried twice, because the cause may be external."""
    pool = WorkerPool(crash, 1, 60.0)
    monkeypatch.setattr(view_frames, "_pool", lambda *_: pool)
    with pytest.raises(UndecodableVideoError, match=r"a\.mp4: decoding it twice: .*SIGSEGV.* then .*SIGSEGV"):
        read_view_frames("a.mp4", REQUEST, 60.0)
    pool.close()
