"""FFmpeg's command line as an iterator of the pictures that it shows when it plays a file from the start."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np


@dataclass(frozen=True)
class FFmpeg:
    """FFmpeg's command line, and its major version; builds from its repository count as the newest."""

    path: str
    version: int


def find_ffmpeg(name: str) -> FFmpeg | None:
    """The program of that name; None if there is none, or if it does not run, as without its libraries."""
    path = shutil.which(name)
    if path is None:
        return None
    done = subprocess.run([path, "-version"], capture_output=True, text=True)
    if done.returncode:
        return None
    found = re.match(r"ffmpeg version n?(\d+)\.", done.stdout)
    return FFmpeg(path, int(found[1]) if found else 999)


class Player:
    """Plays a file from its start: an iterator of pictures, uint8 [H, W, 3], each of its own size.

    Args:
        program: see ``find_ffmpeg``.
        path: the file.
        max_frames: pictures to show at most.
        seconds: it is stopped after this time.

    Attributes:
        killed: whether it was stopped after ``seconds``.
        is_cut: whether it was stopped after ``max_frames``.
        error: its last message.
    """

    def __init__(self, program: FFmpeg, path: str, max_frames: int, seconds: float) -> None:
        sync = ["-fps_mode", "passthrough"] if program.version > 5 else ["-vsync", "passthrough"]
        # Without a map FFmpeg chooses the stream; the format of a picture file has the size in each picture.
        command = [program.path, "-nostdin", "-v", "error", "-protocol_whitelist", "file"]
        command += ["-i", f"file:{os.path.abspath(path)}", "-an", "-sn", "-dn", *sync]
        # One more than are compared, to see whether there are more.
        command += ["-frames:v", str(max_frames + 1), "-autoscale", "0"]
        command += ["-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "pipe:1"]
        self._limit = max_frames
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._messages: list[bytes] = []
        self._reader = threading.Thread(target=self._keep_messages, daemon=True)
        self._reader.start()
        self._timer = threading.Timer(seconds, self._kill)
        self._timer.daemon = True
        self._timer.start()
        self.killed = self.is_cut = False

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        pipe = self._process.stdout
        assert pipe is not None
        count = 0
        while (picture := _read_ppm(pipe)) is not None:
            if count == self._limit:
                self.is_cut = True
                return
            count += 1
            yield picture

    @property
    def error(self) -> str:
        """The last line that FFmpeg wrote."""
        lines = b"".join(self._messages).decode(errors="replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no message")

    def _keep_messages(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        while block := stream.read(4096):
            # A damaged file makes thousands of messages.
            self._messages = [*self._messages[-3:], block]

    def _kill(self) -> None:
        self.killed = True
        self._process.kill()


def _read_ppm(pipe: BinaryIO) -> np.ndarray | None:
    """The next picture of FFmpeg's pipe; None at its end, or if it breaks off within the picture."""
    if pipe.readline() != b"P6\n":
        return None
    width, height = map(int, pipe.readline().split())
    pipe.readline()
    data = pipe.read(3 * width * height)
    return (
        np.frombuffer(bytearray(data), np.uint8).reshape(height, width, 3) if len(data) == 3 * width * height else None
    )
