"""Draw README's picture: the videos of `mote-fast demo`, and the label that the shipped tiny model ranks first.

python lab/demo_animation.py                 # writes docs/assets/demo.webp
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont

import mote_fast
from mote_fast.cli.demo import CLIPS
from mote_fast.data import probe, read_frames

OUTPUT = Path(__file__).parents[1] / "docs" / "assets" / "demo.webp"
COLUMNS = 3
SIDE = 160
TEXT = 56
# Of the animation; the videos have 25 to 44 frames, at 15 and 25 a second.
FRAMES, FRAMES_PER_SECOND = 24, 10
# Of WebP; GIF would keep the videos' noise, and take 1.1 MB.
QUALITY = 60
PAPER, INK, RIGHT, WRONG = (255, 255, 255), (40, 40, 40), (20, 120, 50), (190, 40, 40)


class Judged(NamedTuple):
    """A video, what the model says of it, and what it is."""

    path: Path
    label: str
    score: float
    truth: str


def judge(model: mote_fast.VideoClassifier, path: Path) -> Judged:
    """Classify a video of the demo among its label set, as `mote-fast demo` does."""
    labels = mote_fast.data.read_labels(path.parent.with_suffix(".csv"))
    best = model.classify(path, labels, topk=1)[0]
    return Judged(path, best.label, best.score, path.stem.split("_", 1)[1].replace("_", " "))


def draw(judged: list[Judged], frames: int = FRAMES) -> list[Image.Image]:
    """The pictures of the animation: every video from its first to its last frame, and its label below it."""
    rows = -(-len(judged) // COLUMNS)
    pictures = [Image.new("RGB", (COLUMNS * SIDE, rows * (SIDE + TEXT)), PAPER) for _ in range(frames)]
    for place, found in enumerate(judged):
        left, top = place % COLUMNS * SIDE, place // COLUMNS * (SIDE + TEXT)
        indices = torch.linspace(0, probe(found.path).num_frames - 1, frames).round().long()
        for picture, frame in zip(pictures, read_frames(found.path, indices), strict=True):
            shown = Image.fromarray(frame.numpy()).resize((SIDE - 8, SIDE - 8), Image.Resampling.NEAREST)
            picture.paste(shown, (left + 4, top + 4))
            _write(ImageDraw.Draw(picture), left + 4, top + SIDE, found)
    return pictures


def _write(canvas: ImageDraw.ImageDraw, left: int, top: int, found: Judged) -> None:
    right = found.label == found.truth
    verdict = f"{100 * found.score:.0f} %, {'right' if right else 'wrong'}"
    canvas.text((left, top), verdict, RIGHT if right else WRONG, ImageFont.load_default(12))
    for number, line in enumerate(textwrap.wrap(found.label, 28)):
        canvas.text((left, top + 15 + 12 * number), line, INK, ImageFont.load_default(11))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output = parser.parse_args().output
    model = mote_fast.load("tiny").fold()
    judged = [judge(model, path) for path in sorted(CLIPS.glob("*/*.mp4"), key=lambda path: path.name)]
    first, *rest = draw(judged)
    lasting = {"save_all": True, "append_images": rest, "duration": 1000 // FRAMES_PER_SECOND, "loop": 0}
    first.save(output, quality=QUALITY, method=6, **lasting)


if __name__ == "__main__":
    main()
