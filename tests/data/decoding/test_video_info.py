"""The limits that hold before anything is decoded: a file must not fill the memory by what it claims or holds."""

from __future__ import annotations

import resource
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mote_fast.data.decoding import backend_pyav, video_info
from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.errors import UndecodableVideoError
from tests.data.hostile_files import HOSTILE, write_hostile, write_streams

if TYPE_CHECKING:
    from tests.data.conftest import NumberedVideos


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_take_no_memory(name: str, numbered_videos: NumberedVideos, tmp_path: Path) -> None:
    """Refused with their reason, and without growing the process by more than 64 MiB."""
    path = write_hostile(name, tmp_path, numbered_videos)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((UndecodableVideoError, FileNotFoundError), match=HOSTILE[name]):
        read_frames(path, [0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16


def test_streams_up_to_the_limit(tmp_path: Path) -> None:
    """A broadcast's transport stream carries dozens of programmes."""
    path = tmp_path / "streams.mp4"
    write_streams(path, 90)
    assert probe(path).num_frames == 1


def test_frames_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index holds something for each frame: a file of endless small ones is left before it fills the memory."""
    path = tmp_path / "endless.y4m"
    picture = b"FRAME\n" + bytes(6)
    path.write_bytes(b"YUV4MPEG2 W2 H2 F25:1 Ip A1:1 C420jpeg\n" + picture * 101)
    assert probe(path).num_frames == 101
    monkeypatch.setattr(backend_pyav, "MAX_FRAMES", 100)
    with pytest.raises(UndecodableVideoError, match="over 100 frames"):
        probe(path)


def test_frames_read_at_once(numbered_videos: NumberedVideos, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before any memory is taken; repeats of a frame cost nothing and are let through."""
    path = numbered_videos.write("video_info.mp4")
    monkeypatch.setattr(video_info, "MAX_READ_BYTES", 10 * 64 * 48 * 3)
    assert read_frames(path, [*range(10), *range(10)]).shape[0] == 20
    with pytest.raises(UndecodableVideoError, match=r"11 frames of 64x48 take"):
        read_frames(path, range(11))


def test_claimed_duration_is_not_believed(numbered_videos: NumberedVideos, tmp_path: Path) -> None:
    """An MP4 that claims to last for two years holds the frames that it holds."""
    data = bytearray(numbered_videos.write("video_info.mp4").read_bytes())
    for name, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        struct.pack_into(">I", data, data.index(name) + offset, 2**31 - 1)
    path = tmp_path / "endless.mp4"
    path.write_bytes(data)
    info = probe(path)
    assert 1 <= info.num_frames <= 40
    assert numbered_videos.read(read_frames(path, [0, info.num_frames - 1])) == [0, info.num_frames - 1]
