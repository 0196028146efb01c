from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from mote_fast.data.decoding.decode import probe, read_readable_frames
from mote_fast.data.decoding.presentation import frames_at_ticks, tick_rate
from mote_fast.data.loading.clock_frames import ClockChunk, ClockFacts, ClockRequest, open_on_clock
from mote_fast.data.transforms import Preprocessing, evaluation_crops
from mote_fast.errors import DecodingTimeoutError, UndecodableVideoError, VideoError
from tests.data.conftest import HEIGHT, WIDTH, NumberedVideos

# The height of a numbered frame: the crop would cut its squares off.
SQUASHED = Preprocessing(size=64, resize_mode="squash")


@contextmanager
def opened(path: Path, fps: float, limit: float | None = None) -> Iterator[tuple[ClockFacts, Iterator[ClockChunk]]]:
    with open_on_clock(str(path), ClockRequest(tick_rate(fps), SQUASHED), limit) as found:
        yield found


def numbers(path: Path, fps: float, limit: float | None = None) -> list[int]:
    """The number that each tick's frame shows."""
    found: list[int] = []
    with opened(path, fps, limit) as (facts, chunks):
        for chunk in chunks:
            frames = torch.nn.functional.interpolate(chunk.crops.float(), (HEIGHT, WIDTH)).to(torch.uint8)
            read = NumberedVideos.read(frames.permute(0, 2, 3, 1))
            found += [read[at] for at in chunk.positions]
        assert len(found) == facts.ticks
    return found


@pytest.mark.parametrize("limit", [None, pytest.param(60.0, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("fps", [4, 25, 60])
def test_ticks_have_the_frame_that_is_shown(numbered_videos: NumberedVideos, fps: float, limit: float | None) -> None:
    """At a constant rate the frame in the middle of a tick follows from the rate, here and in another process."""
    path = numbered_videos.write("clock.mp4")
    expected = [int((tick + 0.5) / fps * 25 + 1e-9) for tick in range(int(1.6 * fps + 0.499))]
    assert numbers(path, fps, limit) == expected


def test_variable_frame_rate(tmp_path: Path, numbered_videos: NumberedVideos) -> None:
    """A frame is taken as often as the clock ticks while it is shown; the first frame is at 0, whatever its stamp."""
    gaps = [10, 90, 40, 500] * 10
    stamps = [3000, *(3000 + np.cumsum(gaps)[:39]).tolist()]
    path = numbered_videos.encode_timed(tmp_path / "vfr.mkv", numbered_videos.draw(40), stamps)
    shown = numbers(path, 20)
    for tick, number in enumerate(shown):
        time = 3000 + (tick + 0.5) * 50
        assert number == max(at for at, stamp in enumerate(stamps) if stamp <= time)


def test_each_frame_is_cropped_once(numbered_videos: NumberedVideos) -> None:
    """A frame that several ticks see comes once in a chunk."""
    with opened(numbered_videos.write("clock.mp4"), 40) as (_, chunks):
        first = next(chunks)
    assert len(first.positions) == 64
    assert len(first.crops) == 40


@pytest.mark.parametrize("limit", [None, pytest.param(60.0, marks=pytest.mark.heavy)])
def test_damage_has_stand_ins(tmp_path: Path, numbered_videos: NumberedVideos, limit: float | None) -> None:
    """Where frames cannot be decoded the nearest ones stand in, as in reads of single frames."""
    path = tmp_path / "damaged.mp4"
    content = bytearray(numbered_videos.write("damage.mp4", g=10, bf=0, crf=1).read_bytes())
    middle = content.index(b"mdat") + len(content) // 2
    content[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(content)
    expected = read_readable_frames(path, frames_at_ticks(probe(path), tick_rate(25)))
    assert expected.stand_ins
    with opened(path, 25, limit) as (_, chunks):
        (chunk,) = chunks
    assert chunk.stand_ins == expected.stand_ins
    assert torch.equal(chunk.crops[chunk.positions], evaluation_crops(expected.frames, SQUASHED)[:, 0])


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    """The error is the decoder's, in this process and in another."""
    path = tmp_path / "page.mp4"
    path.write_text("<!DOCTYPE html>" * 100)
    for limit in (None, 60.0):
        with pytest.raises(VideoError, match=r"page\.mp4"), opened(path, 4, limit):
            pass


@pytest.mark.heavy
def test_decoding_that_takes_too_long(tmp_path: Path, numbered_videos: NumberedVideos) -> None:
    """A process over its time costs its video, which the error names."""
    path = numbered_videos.write("clock.mp4")
    with pytest.raises(DecodingTimeoutError, match=r"clock\.mp4: decoding it took over"), opened(path, 25, 1e-6):
        pass


def test_a_time_far_off(numbered_videos: NumberedVideos) -> None:
    """A clock with more ticks than any video has is refused before memory is taken for it."""
    with pytest.raises(UndecodableVideoError, match="ticks of a clock"):
        frames_at_ticks(probe(numbered_videos.write("clock.mp4")), tick_rate(1e6))
