"""A few small videos, sound and faulty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mote_fast.data import write_video


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five sound videos of 8 to 12 frames."""
    folder = tmp_path_factory.mktemp("sound")
    dice = np.random.default_rng(0)
    return [
        Path(write_video(folder / f"{count}.mp4", dice.integers(0, 256, (count, 48, 64, 3), np.uint8)))
        for count in range(8, 13)
    ]


@pytest.fixture
def collection(tmp_path: Path, sound: list[Path]) -> Path:
    """A folder with the sound videos, and one of each fault that needs no patience."""
    folder = tmp_path / "collection"
    folder.mkdir()
    for path in sound:
        (folder / path.name).symlink_to(path)
    (folder / "crash.mp4").write_bytes(b"anything")
    (folder / "damaged.mp4").write_bytes(b"no video")
    (folder / "gone.mp4").symlink_to(folder / "nowhere")
    return folder
