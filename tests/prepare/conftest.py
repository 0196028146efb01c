"""Tiny videos of many names and lengths, each with different content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mote_fast.data.decoding.video_writer import write_video

FRAMES = 12

VideoMaker = Callable[..., Path]


@pytest.fixture
def make_video() -> VideoMaker:
    """Write a video of ``frames`` frames, and its parent folders; the content depends on ``seed``."""

    def make(path: Path, frames: int = FRAMES, seed: int | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = hash_of(path) if seed is None else seed
        pixels = torch.full((frames, 32, 48, 3), shade % 200, dtype=torch.uint8)
        pixels[:, :: 2 + shade % 7, :: 2 + shade % 5] = 250
        codec = "libvpx" if path.suffix == ".webm" else "mpeg4"
        write_video(path, pixels, fps=12, codec=codec, g=4)
        return path

    return make


def hash_of(path: Path) -> int:
    return sum((at + 1) * ord(letter) for at, letter in enumerate(path.name))


def write(path: Path, text: str) -> Path:
    """Write an annotation file, and its parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def touch(root: Path, *paths: str) -> Path:
    """Create empty files."""
    for path in paths:
        write(root / path, path)
    return root
