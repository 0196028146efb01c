"""Videos for the examples where nothing else is at hand: a coloured square that moves, in a folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

import mote_fast

SIDE, LENGTH = 64, 24
# Class name -> red, green and blue, and pixels to the right and down in each frame.
CLASSES = {
    "plain red square sliding to the right": ((200, 60, 50), 1, 0),
    "plain red square sliding to the left": ((200, 60, 50), -1, 0),
    "plain blue square sliding to the bottom": ((60, 90, 200), 0, 1),
}


def draw_folder(root: Path, names: Sequence[str] = tuple(CLASSES), videos: int = 8) -> Path:
    """Write ``root/CLASS/NUMBER.mp4``, ``videos`` of each class, under these names; return the folder."""
    for name, (colour, right, down) in zip(names, CLASSES.values(), strict=True):
        folder = root / name.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(videos):
            random = torch.Generator().manual_seed(number)
            frames = torch.randint(20, 40, (LENGTH, SIDE, SIDE, 3), generator=random, dtype=torch.uint8)
            across = torch.randint(-8, 9, (2,), generator=random).tolist()
            for time, frame in enumerate(frames):
                moved = time - LENGTH // 2
                top, left = 24 + down * moved + across[0], 24 + right * moved + across[1]
                frame[top : top + 16, left : left + 16] = torch.tensor(colour, dtype=torch.uint8)
            mote_fast.data.write_video(folder / f"{number}.mp4", frames, fps=15)
    return root
