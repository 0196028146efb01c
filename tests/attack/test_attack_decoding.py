"""Damaged, hostile and expensive videos: typed errors or frames, in bounded time and memory."""

from __future__ import annotations

import contextlib
import random
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from mote_fast.data.decoding.decode import available_backends, probe, read_frames
from mote_fast.data.decoding.video_info import MAX_MEMORY
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.loading.view_frames import ViewRequest, read_view_frames
from mote_fast.data.transforms import Preprocessing
from mote_fast.data.views import Views
from mote_fast.errors import MoteError, VideoError
from mote_fast.runtime.workers import WorkerLostError, WorkerPool
from tests.attack.conftest import Attack
from tests.data.bombs import png, repeated_picture
from tests.data.mutations import GRAMMARS, mutate

# Seconds of processor time after which decoding a small file counts as hanging, and MiB that it may take. Where other
# programs take the processors, the same work lasts longer; waiting counts as hanging after ten times as long.
HANG = 20.0
MEMORY = 2048

BASES = {
    "h264.mp4": {"codec": "libx264", "g": 6},
    "hevc.mp4": {"codec": "libx265", "g": 6},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h264.mkv": {"codec": "libx264", "g": 6, "bf": 2},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp8.webm": {"codec": "libvpx"},
    "mpeg4.avi": {"codec": "mpeg4", "g": 6},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}
_GRAMMAR = {".mp4": "mp4", ".mov": "mp4", ".mkv": "mkv", ".webm": "mkv", ".avi": "avi"}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small videos of the usual containers and codecs."""
    folder = tmp_path_factory.mktemp("bases")
    frames = np.random.default_rng(0).integers(0, 255, (14, 12, 16, 3), np.uint8).repeat(6, 1).repeat(6, 2)
    return {
        name: Path(write_video(folder / name, frames, **options)).read_bytes()  # pyright: ignore[reportArgumentType]
        for name, options in BASES.items()
    }


def read(task: tuple[str, str]) -> tuple[str, int]:
    """Read three frames; return what happened, and the process's peak memory in MiB."""
    path, backend = task
    # Ends this process.
    signal.setitimer(signal.ITIMER_PROF, HANG)
    try:
        info = probe(path)
        frames = read_frames(path, [0, info.num_frames // 2, info.num_frames - 1], backend, info=info)
        outcome = "frames" if frames.shape == (3, info.height, info.width, 3) else f"shape {tuple(frames.shape)}"
    except MoteError as error:
        outcome = "refused" if isinstance(error, VideoError) else repr(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@pytest.mark.heavy
@pytest.mark.parametrize("backend", ["pyav", pytest.param("torchcodec", marks=pytest.mark.torchcodec)])
def test_mutated_files_are_read_or_refused(
    backend: str, bases: dict[str, bytes], tmp_path: Path, attack: Attack
) -> None:
    """No hang, no more memory than for a film, and typed errors only; a crash ends the worker and not the caller."""
    choice = random.Random(16)
    crashes = 0
    # The libraries load before the first file.
    pool = WorkerPool(read, 1, 10 * HANG, start=available_backends, memory_limit=MAX_MEMORY)
    with contextlib.closing(pool):
        for number in range(attack.size(60, 5000)):
            name = choice.choice(list(bases))
            path = tmp_path / f"{number}{Path(name).suffix}"
            path.write_bytes(mutate(bases[name], GRAMMARS[_GRAMMAR[path.suffix]], choice))
            with attack.attempt(f"{backend} {number} {name}"):
                try:
                    outcome, peak = pool.run((str(path), backend))
                except WorkerLostError as lost:
                    outcome, peak = "hangs" if lost.timed_out or "SIGPROF" in str(lost) else "crash", 0
                    crashes += outcome == "crash"
                finally:
                    path.unlink()
                assert outcome in ("frames", "refused", "crash")
                assert peak < MEMORY
    # FFmpeg is expected to hold; more than a stray crash would be worth a report.
    assert crashes <= attack.attempts // 500


BOMBS = {
    "10,000 frames of one time": lambda path: repeated_picture(path, png(8000, 8000), 10_000, 8000, 8000),
    "500,000 frames": lambda path: repeated_picture(path, png(64, 48), 500_000, 64, 48, duration=1),
    "too many frames": lambda path: repeated_picture(path, png(64, 48), 600_000, 64, 48, duration=1),
    "30,000 x 30,000": lambda path: repeated_picture(path, png(30_000, 30_000), 10, 30_000, 30_000, duration=1),
    "endless": lambda path: repeated_picture(path, png(64, 48), 100, 64, 48, duration=0xFFFFFFFF),
    "slow": lambda path: repeated_picture(path, png(8000, 8000, depth=16, color=6), 3000, 8000, 8000, duration=1),
}


@pytest.mark.heavy
@pytest.mark.parametrize("kind", BOMBS)
def test_expensive_files_cost_their_time_limit_at_most(kind: str, tmp_path: Path, attack: Attack) -> None:
    """The watched process reads the file or is stopped; the caller gets frames or a typed error, and goes on."""
    path = BOMBS[kind](tmp_path / "bomb.mp4")
    assert path.stat().st_size < 2**24
    request = ViewRequest(8, Views(3, 1), Preprocessing(32), 8)
    limit = 2.0 if not attack.full else HANG
    for _ in range(attack.size(1, 3)):
        with attack.attempt(kind), contextlib.suppress(VideoError):
            frames = read_view_frames(str(path), request, limit).frames
            assert len(frames) <= 24
