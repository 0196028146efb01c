"""``mote-fast demo``: classify shipped videos of classes that the shipped tiny model was not trained on."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from mote_fast.cli import outputs
from mote_fast.data.items import read_labels
from mote_fast.errors import ConfigError, one_line
from mote_fast.model.checkpoint import load
from mote_fast.runtime.environment import PRESETS
from mote_fast.runtime.files import make_folder

# NAME.csv is a label set, NAME/NUMBER_CLASS_NAME.mp4 is a video of one of its classes; lab/write_demo.py writes them.
CLIPS = PRESETS / "demo"
_PRINTED = 3
RIGHT_MARK = "<- right"


def demo_videos() -> list[Path]:
    """Return the shipped videos; the class names of each are in a file beside its folder, of the folder's name."""
    return sorted(CLIPS.glob("*/*.mp4"), key=lambda path: path.name)


def run(arguments: argparse.Namespace) -> int:
    """Copy the videos, classify each with the shipped model, print the ranked labels. Returns 0."""
    folder = Path(arguments.folder)
    make_folder(folder, "--folder")
    try:
        shutil.copytree(CLIPS, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--folder {folder}: cannot be written ({one_line(error)})") from error
    model = load("tiny").fold()
    # Only the shipped videos: the folder may hold others.
    videos = [folder / clip.relative_to(CLIPS) for clip in demo_videos()]
    right = 0
    for video in videos:
        labels = read_labels(video.parent.with_suffix(".csv"))
        truth = video.stem.split("_", 1)[1].replace("_", " ")
        outputs.write(f"{video} (labels: {len(labels)} unseen {video.parent.name})")
        ranked = model.classify(video, labels, views="3x1", topk=_PRINTED)
        right += ranked[0].label == truth
        for place, prediction in enumerate(ranked):
            mark = f"  {RIGHT_MARK}" if place == 0 and prediction.label == truth else ""
            outputs.write(f"  {100 * prediction.score:6.2f} %  {prediction.label}{mark}")
    outputs.write(
        f"{right} of {len(videos)} right. The shipped model knows drawn objects only; for real videos: "
        "mote-fast classify VIDEO --label-set k400"
    )
    return 0
