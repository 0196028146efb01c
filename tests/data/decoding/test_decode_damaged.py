"""Damaged files. For any damage, reading returns in time with frames or a typed error.

Another process reads randomly damaged files, so that a crash or hang is detected and attributed to its file.
"""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from mote_fast.data.decoding import video_info
from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.errors import FrameIndexError, MissingVideoError, UndecodableVideoError

if TYPE_CHECKING:
    from conftest import NumberedVideos

logger = logging.getLogger(__name__)

SECONDS_PER_FILE = 20

# Reads file names, one per line; answers each with a line: the outcome, and for "bug", the exception.
WORKER = """
import sys
import torch
from mote_fast.data.decoding.decode import available_backends, probe, read_frames
from mote_fast.errors import VideoError

usable = [name for name, reason in available_backends().items() if reason is None]
for line in sys.stdin:
    path = line.rstrip("\\n")
    outcome = "error"
    try:
        try:
            info = probe(path)
        except VideoError as error:
            assert str(path) in str(error)
        else:
            last = info.num_frames - 1
            for indices in ([0], [last // 2, last], range(min(info.num_frames, 64))):
                for backend in ("auto", *usable):
                    try:
                        frames = read_frames(path, indices, backend, info=info)
                    except VideoError as error:
                        assert str(path) in str(error)
                    else:
                        assert frames.dtype == torch.uint8
                        assert frames.shape[0] == len(indices)
                        assert frames.shape[3] == 3
                        outcome = "frames"
    except Exception as error:
        outcome = f"bug {type(error).__name__}: {error}".replace("\\n", " ")
    print(outcome, flush=True)
"""

# Codec, container and encoder options of the files to damage.
SOURCES = {
    "h264.mp4": ("libx264", {"g": 8, "bf": 2}),
    "h264.mkv": ("libx264", {"g": 20, "bf": 0}),
    "h264.ts": ("libx264", {"g": 8, "bf": 2}),
    "h264.flv": ("libx264", {"g": 8, "bf": 2}),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none:keyint=8"}),
    "vp9.webm": ("libvpx-vp9", {"g": 8}),
    "vp8.webm": ("libvpx", {"g": 8, "auto-alt-ref": 1, "lag-in-frames": 16}),
    "av1.mkv": ("libsvtav1", {"g": 8, "svtav1-params": "lp=1"}),
    "mpeg4.avi": ("mpeg4", {"g": 8, "bf": 2}),
    "mjpeg.avi": ("mjpeg", {"pix_fmt": "yuvj420p"}),
    "mpeg2.mpg": ("mpeg2video", {"g": 8, "bf": 2}),
    "gif.gif": ("gif", {"pix_fmt": "rgb8"}),
}


# Codec and options of the files to truncate.
CUT = {
    "cut_h264.mp4": ("libx264", {}),
    "cut_h264.flv": ("libx264", {}),
    "cut_mpeg4.avi": ("mpeg4", {"g": 12}),
    "cut_vp9.webm": ("libvpx-vp9", {"g": 12}),
}

NOT_VIDEOS = {
    "empty": b"",
    "zeros": bytes(4096),
    "text": b"hello, I am a text file\n" * 99,
    "noise": np.random.default_rng(0).bytes(20000),
}


class Reader:
    """The other process; restarted after a crash or hang."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, args=(self._process, self._answers), daemon=True).start()

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(line.strip())
        answers.put(f"crash, exit status {process.wait()}")

    def ask(self, path: Path) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        try:
            answer = self._answers.get(timeout=SECONDS_PER_FILE)
        except queue.Empty:
            answer = f"hang over {SECONDS_PER_FILE} s"
        if answer.startswith(("crash", "hang")):
            self.stop()
            self._start()
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def damage(data: bytes, other: bytes, random: np.random.Generator) -> tuple[str, bytes]:
    """One seeded kind of damage to ``data``; ``other`` is a file of another kind, whose beginning is swapped in."""
    kind = random.choice(["bits", "cut", "zeros", "noise", "header", "move"])
    out = np.frombuffer(data, np.uint8).copy()
    start = int(random.integers(len(out)))
    length = int(random.integers(1, max(2, len(out) // 4)))
    if kind == "bits":
        at = random.integers(0, len(out), random.integers(1, 40))
        np.bitwise_xor.at(out, at, (1 << random.integers(0, 8, len(at))).astype(np.uint8))
    elif kind == "cut":
        out = out[: max(1, start)]
    elif kind == "zeros":
        out[start : start + length] = 0
    elif kind == "noise":
        out[start : start + length] = random.integers(0, 256, len(out[start : start + length]))
    elif kind == "header":
        size = int(random.integers(1, 4096))
        out = np.concatenate([np.frombuffer(other[:size], np.uint8), out[size:]])
    else:
        out = np.concatenate([out[start : start + length], out])
    return str(kind), out.tobytes()


def run(sources: Sequence[Path], count: int, folder: Path, seed: int) -> Counter[str]:
    """Damage and read ``count`` copies in turn; fail with the names of all files with another outcome."""
    random = np.random.default_rng(seed)
    reader = Reader()
    outcomes: Counter[str] = Counter()
    broken: list[str] = []
    try:
        for number in range(count):
            source = sources[number % len(sources)]
            other = sources[int(random.integers(len(sources)))]
            kind, data = damage(source.read_bytes(), other.read_bytes(), random)
            path = folder / f"{number:04}_{kind}_{source.name}"
            path.write_bytes(data)
            outcome = reader.ask(path)
            outcomes[outcome.split(" ")[0]] += 1
            if outcome in ("frames", "error"):
                path.unlink()
            else:
                broken.append(f"{path}: {outcome}")
    finally:
        reader.stop()
    logger.info("%d damaged files: %s", count, dict(outcomes))
    assert not broken, "\n".join(broken)
    return outcomes


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, numbered_videos: NumberedVideos) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources")
    return [
        Path(write_video(folder / name, numbered_videos.draw(20), codec=codec, **options))
        for name, (codec, options) in SOURCES.items()
        if codec in av.codecs_available
    ]


@pytest.mark.heavy
def test_300_damaged_copies(sources: list[Path], tmp_path: Path) -> None:
    """Both outcomes must occur, or the damage was too mild or too harsh to test anything."""
    outcomes = run(sources, 300, tmp_path, seed=0)
    assert outcomes["frames"] > 30
    assert outcomes["error"] > 30


@pytest.mark.slow
def test_3000_damaged_copies(sources: list[Path], clips_dir: Path, tmp_path: Path) -> None:
    """The same with more copies, and with real clips."""
    clips = sorted(path for path in clips_dir.iterdir() if path.suffix in {".mp4", ".mkv", ".avi", ".mov"})
    run([*sources, *clips], 3000, tmp_path, seed=1)


@pytest.mark.parametrize("path", ["missing.mp4", "missing/x.mp4", "nul\0byte.mp4"])
def test_missing_file(path: str, tmp_path: Path) -> None:
    """The error is also a plain FileNotFoundError."""
    with pytest.raises(MissingVideoError, match=r"missing|nul") as caught:
        probe(tmp_path / path)
    assert isinstance(caught.value, FileNotFoundError)


def test_not_a_regular_file(tmp_path: Path) -> None:
    """Opening a pipe would wait for a writer forever, and a device would return data forever."""
    os.mkfifo(tmp_path / "pipe.mp4")
    for path, message in (
        (tmp_path / "pipe.mp4", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path, "a folder; give the paths"),
    ):
        with pytest.raises(UndecodableVideoError, match=message):
            read_frames(path, [0])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    """The error differs from that of a damaged file."""
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(UndecodableVideoError, match="permission denied"):
        probe(path)


@pytest.mark.parametrize("name", CUT)
def test_cut_short(decode_backend: str, name: str, numbered_videos: NumberedVideos, tmp_path: Path) -> None:
    """An interrupted download: intact frames are returned, the rest raises and is never substituted."""
    codec, options = CUT[name]
    path = tmp_path / name
    whole = numbered_videos.write(name, codec=codec, **options)
    if path.suffix == ".mp4":
        numbered_videos.put_index_first(whole, path)
        whole = path
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) * 85 // 100])
    count = probe(path).num_frames
    assert 5 < count < 39
    assert numbered_videos.read(read_frames(path, [count - 1, 0, 5], decode_backend)) == [count - 1, 0, 5]
    with pytest.raises((UndecodableVideoError, FrameIndexError), match=name):
        read_frames(path, [0, 39], decode_backend)


@pytest.mark.parametrize("name", ["tail.mp4", "tail.mkv", "tail.flv", "tail.ts"])
def test_cut_never_moves_a_later_frame_up(name: str, numbered_videos: NumberedVideos, tmp_path: Path) -> None:
    """If B-frames at the end are lost, the frame that follows them must not take their index."""
    path = tmp_path / name
    whole = numbered_videos.write(name)
    if path.suffix == ".mp4":
        numbered_videos.put_index_first(whole, path)
        whole = path
    data = whole.read_bytes()
    for percent in range(60, 95, 5):
        path.write_bytes(data[: len(data) * percent // 100])
        info = probe(path)
        assert info.num_frames > 5
        assert numbered_videos.read(read_frames(path, range(info.num_frames))) == list(range(info.num_frames))


@pytest.mark.parametrize("kind", NOT_VIDEOS)
def test_not_a_video(kind: str, tmp_path: Path) -> None:
    """Data sets hold HTML error pages under the names of clips."""
    path = tmp_path / "page.mp4"
    path.write_bytes(NOT_VIDEOS[kind])
    for source in (path, NOT_VIDEOS[kind]):
        with pytest.raises(UndecodableVideoError, match=r"page\.mp4|<bytes>"):
            read_frames(source, [0])


def test_an_mp4_cut_between_two_frames_is_damaged(numbered_videos: NumberedVideos, tmp_path: Path) -> None:
    """Its index comes first, and reading ends without an error, as if the file were whole."""
    whole = tmp_path / "whole.mp4"
    with av.open(str(whole), "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=25, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for image in numbered_videos.draw(30, 96, 160):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")))
        file.mux(stream.encode(None))
    with av.open(str(whole)) as file:
        starts = [entry.pos for entry in file.streams.video[0].index_entries]
    assert not probe(whole).timeline.damaged
    for count in (12, 21, 29):
        cut = tmp_path / f"cut{count}.mp4"
        cut.write_bytes(whole.read_bytes()[: starts[count]])
        info = probe(cut)
        assert info.timeline.damaged
        assert 0 < info.num_frames <= count
        with pytest.raises(UndecodableVideoError, match="cut short"):
            read_frames(cut, [29])


def test_audio_only(tmp_path: Path) -> None:
    """Kinetics has clips without a video stream."""
    path = tmp_path / "sound.mov"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
    with pytest.raises(UndecodableVideoError, match="no video stream"):
        read_frames(path, [0])


def test_header_that_claims_a_huge_size(tmp_path: Path, numbered_videos: NumberedVideos) -> None:
    """65535 x 65535 pixels in RGB would take 12 GiB."""
    path = Path(write_video(tmp_path / "huge.gif", numbered_videos.draw(3), codec="gif", pix_fmt="rgb8"))
    data = bytearray(path.read_bytes())
    data[6:10] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(UndecodableVideoError, match=r"huge\.gif"):
        read_frames(path, [0])


def test_frames_over_the_pixel_limit(numbered_videos: NumberedVideos, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit also applies to the size that the stream itself declares."""
    path = numbered_videos.write("h264.mp4")
    monkeypatch.setattr(video_info, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(UndecodableVideoError, match="limit"):
        probe(path)
