"""An epoch of training a head on stored features against one on the videos: processor time, and both loss curves.

    python benchmarks/cached_features.py --clips 2000
    python benchmarks/cached_features.py --clips 200 --size 340x256 --length 300   # as large and long as Kinetics' are

Clips are generated, by default of 224 x 224 pixels and 32 frames; they decode more easily than videos of a camera. The
shipped tiny model's image tower is frozen. Each arm trains for two epochs in float32, and the steps of the second are
timed. Nothing decodes beside this process, so that its processor time is all of it. OMP_NUM_THREADS=1 leaves out the
time for which threads wait for one another.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

from mote_fast.cli import main as command
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.runtime.json_text import from_json
from mote_fast.training import loop
from mote_fast.training.config.train_config import load_config
from mote_fast.training.step import LOSSES

CLASSES = 4
# Pixels that the square moves, and its side.
WAY, SQUARE = 128, 60


def write_clips(folder: Path, clips: int, width: int, height: int, length: int) -> None:
    """Videos of a square that moves in one of four directions, their list, and the names of the classes.

    Args:
        folder: for all of them.
        clips: number of videos.
        width: pixels.
        height: pixels.
        length: frames of a video.
    """
    draws = np.random.default_rng(0)
    lines = []
    for number in range(clips):
        frames = np.full((length, height, width, 3), draws.integers(0, 120, 3), np.uint8)
        direction = number % CLASSES
        for at, frame in enumerate(frames):
            place = (at, length - at)[direction % 2] * WAY // length
            top, left = (place, 80) if direction < 2 else (80, place)
            frame[top : top + SQUARE, left : left + SQUARE] = 220
        write_video(folder / f"{number}.mp4", frames, preset="ultrafast")
        lines.append(f"{number}.mp4 {direction}\n")
    (folder / "list.txt").write_text("".join(lines))
    (folder / "names.csv").write_text("id,name\n" + "".join(f"{at},way {at}\n" for at in range(CLASSES)))


def settings_of(folder: Path) -> list[str]:
    """The run's configuration, as train takes it on its command line."""
    files = {"train_list": "list.txt", "labels": "names.csv", "train_root": ""}
    return [
        *(f"data.{name}={folder / file}" for name, file in files.items()),
        "data.val_list=null",
        "data.flip_labels=null",
        "data.workers=0",
        "data.augmentation=none",
        "data.batch_size=64",
        "model.checkpoint=tiny",
        "model.train_clip=false",
        "optim.precision=fp32",
        "optim.accumulation=1",
        "optim.epochs=2",
        "optim.warmup_epochs=0",
        "run.device=cpu",
        "run.log_every=1",
        "run.save_every=0",
        "run.tensorboard=false",
    ]


def run(settings: list[str], output: Path) -> tuple[float, list[list[float]]]:
    """Train, and return the processor time of the last epoch's steps, seconds, and the losses of every step."""
    seconds: list[float] = []
    take_steps = loop._take_steps

    def timed(state: loop.Run) -> None:
        begun = time.process_time()
        take_steps(state)
        seconds.append(time.process_time() - begun)

    with patch.object(loop, "_take_steps", timed):
        loop.train(load_config("folder", [*settings, f"run.output={output}"]))
    records = [from_json(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return seconds[-1], [[each[name] for name in LOSSES] for each in records if each["kind"] == "train"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3, help="repetitions of both arms, in turn")
    parser.add_argument("--size", default="224x224", help="width x height of the clips, pixels")
    parser.add_argument("--length", type=int, default=32, help="frames of a clip")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    if min(width, height) < WAY + SQUARE:
        parser.error(f"--size: the square moves within {WAY + SQUARE} pixels each way, got {options.size}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder, options.clips, width, height, options.length)
        settings = settings_of(folder)
        if status := command(
            ["prepare", "features", "--config", "folder", "--output", f"{folder}/features", *settings]
        ):
            raise SystemExit(status)
        arms = {"videos": settings, "features": [*settings, f"data.features={folder / 'features'}"]}
        epochs: dict[str, list[float]] = {arm: [] for arm in arms}
        curves: dict[str, list[list[float]]] = {}
        for turn in range(options.turns):
            for arm, given in arms.items():
                seconds, curves[arm] = run(given, folder / f"{arm}-{turn}")
                epochs[arm].append(seconds)
        ratios = [a / b for a, b in zip(epochs["videos"], epochs["features"], strict=True)]
        difference = np.abs(np.subtract(curves["videos"], curves["features"])).max()
        for arm, taken in epochs.items():
            print(f"{arm}: {statistics.median(taken):.2f} s of processor time for an epoch of {options.clips} clips")
        print(f"ratio {statistics.median(ratios):.1f} (median of {len(ratios)}); losses differ by {difference:.1e}")


if __name__ == "__main__":
    main()
