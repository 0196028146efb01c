"""Timelines of long and of damaged videos: nothing grows with the length, and no damage does more than cost a video."""

from __future__ import annotations

import os
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import mote_fast
from mote_fast.data import write_video
from mote_fast.errors import VideoError
from tests.attack.conftest import Attack

LABELS = ["ring", "star"]
RATE = 5
# Growth from the fifth minute to the end.
MOST_BYTES = 50 * 2**20


@pytest.fixture(scope="module")
def model() -> mote_fast.VideoClassifier:
    torch.manual_seed(0)
    model = mote_fast.create_model("ViT-test", frames=4, layers=1, experts=2)
    model.feature_cache = None
    return model


def write_long(path: Path, seconds: int) -> None:
    """A video whose frames are drawn one after another, so that the test's own memory does not grow."""
    pictures = np.random.default_rng(0).integers(0, 256, (50, 32, 48, 3), np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=Fraction(RATE))
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for number in range(seconds * RATE):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pictures[number * 7 % 50], format="rgb24")))
        file.mux(stream.encode(None))


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process as Linux tells it")
@pytest.mark.parametrize("watched", [False, True])
def test_memory_is_flat_and_time_linear(
    watched: bool, attack: Attack, model: mote_fast.VideoClassifier, tmp_path: Path
) -> None:
    """Ten minutes, in full two hours: after the fifth minute no memory is taken, and no minute takes longer."""
    seconds = 60 * attack.size(10, 120)
    path = tmp_path / "long.mp4"
    write_long(path, seconds)
    seen: list[tuple[float, int, float]] = []
    model.decode_time_limit = 60.0 if watched else None
    with attack.attempt(f"{seconds} s"):
        found = model.timeline(
            path,
            LABELS,
            window=4,
            progress=lambda done, duration: seen.append((done, resident(), time.process_time())),
        )
        assert len(found.times) == seconds - 3
        early = min(size for done, size, _ in seen if 300 <= done < 420)
        assert seen[-1][1] - early < MOST_BYTES
        if attack.full:
            # Processor time, of quarters of two hours; the first one warms up.
            at = [next(spent for done, _, spent in seen if done >= share * seconds) for share in (0.25, 0.5, 0.75, 1)]
            quarters = [later - sooner for sooner, later in pairwise(at)]
            assert max(quarters) < 1.5 * min(quarters)
    model.decode_time_limit = None


def test_damaged_files(attack: Attack, model: mote_fast.VideoClassifier, tmp_path: Path) -> None:
    """Whatever is overwritten or cut off, there is a timeline within the duration, or a typed error."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (60, 32, 48, 3), np.uint8)
    sources = []
    for name, codec in (
        ("h264.mp4", "libx264"),
        ("h264.mkv", "libx264"),
        ("mpeg4.avi", "mpeg4"),
        ("h264.ts", "libx264"),
    ):
        write_video(tmp_path / name, frames, fps=10, codec=codec, g=12)
        sources.append(tmp_path / name)
    for number in range(attack.size(24, 600)):
        source = sources[number % len(sources)]
        data = bytearray(source.read_bytes())
        for _ in range(int(random.integers(1, 4))):
            at = int(random.integers(len(data)))
            data[at : at + int(random.integers(1, 300))] = random.bytes(int(random.integers(0, 300)))
        path = tmp_path / f"damaged{source.suffix}"
        path.write_bytes(data[: int(random.integers(len(data) // 2, len(data) + 1))])
        with attack.attempt(f"{source.name} {number}"):
            try:
                found = model.timeline(path, LABELS, fps=5, background="auto")
            except VideoError:
                continue
            assert len(found.times) == len(found.scores) > 0
            assert all(0 <= each.start < each.end for each in found.segments)
            assert found.times == sorted(found.times)
