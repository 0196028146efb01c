"""The limits before decoding: a file must not exhaust memory by what it declares or holds."""

from __future__ import annotations

import resource
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mote_fast.data.decoding import packet_index, video_info
from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.data.decoding.video_info import packets_of
from mote_fast.errors import UndecodableVideoError
from tests.data.hostile_files import HOSTILE, write_hostile, write_streams

if TYPE_CHECKING:
    from tests.data.conftest import NumberedVideos


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_take_no_memory(name: str, numbered_videos: NumberedVideos, tmp_path: Path) -> None:
    """Hostile files are refused with a reason, and the process grows by at most 64 MiB."""
    path = write_hostile(name, tmp_path, numbered_videos)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((UndecodableVideoError, FileNotFoundError), match=HOSTILE[name]):
        read_frames(path, [0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16


def test_streams_up_to_the_limit(tmp_path: Path) -> None:
    """A broadcast transport stream carries dozens of programmes."""
    path = tmp_path / "streams.mp4"
    write_streams(path, 90)
    assert probe(path).num_frames == 1


def test_frames_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index has an entry for each frame: reading endless small frames stops before memory is full."""
    path = tmp_path / "endless.y4m"
    picture = b"FRAME\n" + bytes(6)
    path.write_bytes(b"YUV4MPEG2 W2 H2 F25:1 Ip A1:1 C420jpeg\n" + picture * 101)
    assert probe(path).num_frames == 101
    monkeypatch.setattr(packet_index, "MAX_FRAMES", 100)
    with pytest.raises(UndecodableVideoError, match="over 100 frames"):
        probe(path)


def test_frames_read_at_once(numbered_videos: NumberedVideos, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read is refused before memory is allocated; repeated frames cost nothing and are allowed."""
    path = numbered_videos.write("video_info.mp4")
    monkeypatch.setattr(video_info, "MAX_READ_BYTES", 10 * 64 * 48 * 3)
    assert read_frames(path, [*range(10), *range(10)]).shape[0] == 20
    with pytest.raises(UndecodableVideoError, match=r"11 frames of 64x48 take"):
        read_frames(path, range(11))


def test_claimed_duration_is_not_believed(numbered_videos: NumberedVideos, tmp_path: Path) -> None:
    """The frame count of an MP4 that declares a length of two years is the number of frames in it."""
    data = bytearray(numbered_videos.write("video_info.mp4").read_bytes())
    for name, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        struct.pack_into(">I", data, data.index(name) + offset, 2**31 - 1)
    path = tmp_path / "endless.mp4"
    path.write_bytes(data)
    info = probe(path)
    assert 1 <= info.num_frames <= 40
    assert numbered_videos.read(read_frames(path, [0, info.num_frames - 1])) == [0, info.num_frames - 1]


def test_a_stream_that_the_header_lacks_ends_the_packets() -> None:
    """At the end of such a file PyAV raises IndexError, after the last packet; damaged copies of HEVC files did it."""

    class Container:
        def demux(self, stream: object) -> Iterator[str]:
            yield from ("first", "last")
            raise IndexError("list index out of range")

    container: Any = Container()
    stream: Any = None
    assert list(packets_of(container, stream)) == ["first", "last"]
