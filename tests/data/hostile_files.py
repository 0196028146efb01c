"""Unreadable files in lists of videos, as found in practice or made to do harm."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

if TYPE_CHECKING:
    from tests.data.conftest import NumberedVideos

# File name, and the text that its report must contain.
HOSTILE = {
    "missing.mp4": "no such file",
    "empty.mp4": "empty file",
    "page.mp4": "not a video",
    "zeros.mp4": "not a video",
    "noise.avi": "not a video",
    "playlist.mp4": "not a video",
    "pipe.mp4": "not a regular file",
    "sound.mp4": "no video stream",
    "cut.mp4": "not a video",
    "huge.gif": "not one of its frames",
    "huge.avi": "not one of its frames",
    "streams.mp4": "streams",
}


def write_hostile(name: str, folder: Path, videos: NumberedVideos) -> Path:
    """Write the file of that name, one of ``HOSTILE``."""
    path = folder / name
    if name == "empty.mp4":
        path.touch()
    elif name == "page.mp4":
        path.write_text("<!DOCTYPE html><title>404 Not Found</title>" * 40)
    elif name == "zeros.mp4":
        path.write_bytes(bytes(100_000))
    elif name == "noise.avi":
        path.write_bytes(np.random.default_rng(0).bytes(100_000))
    elif name == "playlist.mp4":
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{videos.write('hostile.ts')}\n#EXT-X-ENDLIST\n")
    elif name == "pipe.mp4":
        os.mkfifo(path)
    elif name == "sound.mp4":
        _write_sound(path)
    elif name == "cut.mp4":
        # The index of an MP4 is at its end, unless it was moved.
        path.write_bytes(videos.write("hostile.mp4").read_bytes()[:2000])
    elif name == "huge.gif":
        data = videos.write("hostile.gif", codec="gif", pix_fmt="rgb8").read_bytes()
        path.write_bytes(data[:6] + b"\xff\xff\xff\xff" + data[10:])
    elif name == "huge.avi":
        _write_huge_pictures(path, videos.write("hostile.avi", codec="mjpeg", pix_fmt="yuvj420p"))
    elif name == "streams.mp4":
        write_streams(path, 120)
    return path


def write_streams(path: Path, count: int) -> None:
    """Write a file of ``count`` video streams, one small frame each."""
    with av.open(str(path), "w") as file:
        streams = [file.add_stream("mjpeg", rate=25) for _ in range(count)]
        for stream in streams:
            stream.width = stream.height = 16
            stream.pix_fmt = "yuvj420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        for stream in streams:
            file.mux([*stream.encode(picture), *stream.encode(None)])


def _write_sound(path: Path) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        file.mux([*stream.encode(frame), *stream.encode(None)])


def _write_huge_pictures(path: Path, source: Path) -> None:
    """Let each JPEG frame declare 30,000 x 30,000 pixels (ITU T.81, B.2.2: the header's height and width)."""
    size = (30000).to_bytes(2, "big") * 2
    data, count = re.subn(rb"(\xff\xc0..\x08)....", lambda match: match[1] + size, source.read_bytes(), flags=re.DOTALL)
    assert count > 1
    path.write_bytes(data)
