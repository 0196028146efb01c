"""Videos with identifiable frames: each frame shows its number as eight large black or white squares."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from mote_fast.data.decoding.video_writer import write_video

SQUARE = 16
HEIGHT, WIDTH = 3 * SQUARE, 4 * SQUARE

# x264 with B-frames and a key frame every 12 frames, without extra key frames at scene cuts.
_PLAIN: dict[str, Any] = {"g": 12, "bf": 2, "sc_threshold": 0}


def _read_number(frame: np.ndarray) -> int:
    """The number drawn in a decoded frame, uint8 [H, W, 3]."""
    number = 0
    for bit in range(8):
        top, left = bit // 4 * SQUARE + 4, bit % 4 * SQUARE + 4
        number |= int(frame[top : top + 8, left : left + 8].mean() > 127) << bit
    return number


class NumberedVideos:
    """Writes numbered videos of every kind, and reads the numbers back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, codec: str = "libx264", **options: Any) -> Path:
        """Write 40 numbered frames once; by default with B-frames. Skips the test if the encoder is missing."""
        if codec not in av.codecs_available:
            pytest.skip(f"this PyAV has no encoder {codec}")
        path = self._folder / name
        if not path.exists():
            write_video(path, self.draw(40), codec=codec, **(options or _PLAIN))
        return path

    @staticmethod
    def draw(count: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
        """uint8 [count, height, width, 3]: bits 0-3 in the first row of squares, 4-7 in the second, motion below."""
        frames = np.zeros((count, height, width, 3), np.uint8)
        for number in range(count):
            for bit in range(8):
                top, left = bit // 4 * SQUARE, bit % 4 * SQUARE
                frames[number, top : top + SQUARE, left : left + SQUARE] = 255 * (number >> bit & 1)
            ramp = (np.arange(width) * 3 + number * 9) % 256
            frames[number, 2 * SQUARE :, :, 0] = ramp
            frames[number, 2 * SQUARE :, :, 1] = 255 - ramp
        return frames

    @staticmethod
    def read(frames: torch.Tensor) -> list[int]:
        """The numbers drawn in decoded frames, uint8 [N, H, W, 3]."""
        return [_read_number(frame.numpy()) for frame in frames]

    @staticmethod
    def encode_timed(
        path: Path, frames: np.ndarray, pts: Sequence[int], container: dict[str, str] | None = None
    ) -> Path:
        """H.264 with B-frames and the given timestamps, in milliseconds."""
        with av.open(str(path), "w", options=container or {}) as file:
            stream = file.add_stream("libx264", rate=25, options={"g": "12", "bf": "2"})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            for image, stamp in zip(frames, pts, strict=True):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = stamp, Fraction(1, 1000)
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        return path

    @staticmethod
    def put_index_first(source: Path, target: Path) -> None:
        """Copy an MP4 with its index before the frames, as in downloads, so that truncation keeps the index."""
        with av.open(str(source), "r") as old, av.open(str(target), "w", options={"movflags": "faststart"}) as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    new.mux(packet)

    @staticmethod
    def set_rotation(path: Path, clockwise: int) -> None:
        """Overwrite the display matrix in an MP4's track header (ISO 14496-12, 8.3.2)."""
        cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise]
        matrix = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
        data = bytearray(path.read_bytes())
        # Type, version and flags, five 32-bit fields, two reserved words, four 16-bit fields.
        start = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
        data[start : start + 36] = matrix
        path.write_bytes(data)

    @staticmethod
    def skip_by_edit_list(path: Path, ticks: int) -> None:
        """Let an MP4's edit list start ``ticks`` media ticks later (ISO 14496-12, 8.6.6)."""
        data = bytearray(path.read_bytes())
        start = data.index(b"elst") + 4 + 4 + 4 + 4
        (media_time,) = struct.unpack_from(">i", data, start)
        struct.pack_into(">i", data, start, media_time + ticks)
        path.write_bytes(data)


@pytest.fixture(scope="session")
def numbered_videos(tmp_path_factory: pytest.TempPathFactory) -> NumberedVideos:
    return NumberedVideos(tmp_path_factory.mktemp("numbered"))


@pytest.fixture(params=[pytest.param("torchcodec", marks=pytest.mark.torchcodec), "pyav"])
def decode_backend(request: pytest.FixtureRequest) -> str:
    return request.param
