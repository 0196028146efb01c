"""``mote-fast demo``: write a short video and classify it, with nothing but what is installed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mote_fast.checkpoint import create_model
from mote_fast.data.decode import probe
from mote_fast.data.video_writer import write_video

LABELS = (
    "a ball rolling to the right",
    "a ball rolling to the left",
    "a ball falling",
    "juggling balls",
    "playing the cello",
)

# One second and a half at 24 frames a second.
FRAMES, HEIGHT, WIDTH, FPS = 36, 240, 320, 24


def add_command(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("demo", help="write a short video and classify it", description=__doc__)
    parser.add_argument("--folder", default="demo", help="where the video goes (default ./%(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the video, classify it with the tiny preset, print the ranked labels. Returns 0."""
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = write_video(folder / "rolling_ball.mp4", rolling_ball(), fps=FPS)
    info = probe(path)
    print(f"wrote {path}: {info.num_frames} frames, {info.width} x {info.height}, {info.codec}")
    torch.manual_seed(0)
    model = create_model("tiny").fold()
    for prediction in model.classify(path, LABELS, views="3x1"):
        print(f"  {100 * prediction.score:6.2f} %  {prediction.label}")
    print(
        "The tiny preset's weights are untrained, so this ranking means nothing; for real ones: "
        "mote-fast classify VIDEO --label-set k400 --checkpoint RELEASED.pt --clip ViT-B-16.pt"
    )
    return 0


def rolling_ball() -> Tensor:
    """Draw a ball that rolls to the right over a shaded floor: uint8 [T, H, W, 3]."""
    rows = torch.arange(HEIGHT)[:, None].expand(HEIGHT, WIDTH)
    columns = torch.arange(WIDTH)[None, :].expand(HEIGHT, WIDTH)
    floor = torch.stack((80 + rows // 4, 110 + rows // 6, 150 - rows // 5), dim=-1)
    frames = floor.to(torch.uint8).repeat(FRAMES, 1, 1, 1)
    radius = 26
    for time, frame in enumerate(frames):
        centre = radius + time * (WIDTH - 2 * radius) // (FRAMES - 1)
        ball = (columns - centre) ** 2 + (rows - 150) ** 2 <= radius**2
        frame[ball] = torch.tensor([220, 60, 40], dtype=torch.uint8)
    return frames
