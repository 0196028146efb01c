"""``mote-fast demo``: draw videos of classes that the shipped tiny model never saw, and classify them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mote_fast.checkpoint import load
from mote_fast.world.splits import COMBINATIONS, UNSEEN_ACTIONS, splits
from mote_fast.world.words import class_name
from mote_fast.world.write import write_action

# Which classes of which label set; the labels to choose from are all of that set.
SHOWN = (
    (COMBINATIONS, 1),
    (COMBINATIONS, 10),
    (COMBINATIONS, 20),
    (COMBINATIONS, 34),
    (UNSEEN_ACTIONS, 2),
    (UNSEEN_ACTIONS, 12),
)
_PRINTED = 3
RIGHT_MARK = "<- right"


def add_command(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("demo", help="draw videos of unseen classes and classify them", description=__doc__)
    parser.add_argument("--folder", default="demo", help="where the videos go (default ./%(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the videos, classify each with the shipped model, print the ranked labels. Returns 0."""
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = load("tiny").fold()
    sets = splits()
    right = 0
    for number, (name, index) in enumerate(SHOWN):
        labels = sets[name].labels
        thing, action = sets[name].classes[index]
        truth = class_name(thing, action)
        path = write_action(folder / f"{truth.replace(' ', '_')}.mp4", thing, action, seed=("demo", number))
        print(f"{path} (labels: {len(labels)} unseen {name})")
        ranked = model.classify(path, labels, views="3x1", topk=_PRINTED)
        right += ranked[0].label == truth
        for place, prediction in enumerate(ranked):
            mark = f"  {RIGHT_MARK}" if place == 0 and prediction.label == truth else ""
            print(f"  {100 * prediction.score:6.2f} %  {prediction.label}{mark}")
    print(
        f"{right} of {len(SHOWN)} right. The shipped model knows drawn objects only; for real videos: "
        "mote-fast classify VIDEO --label-set k400 --checkpoint RELEASED.pt --clip ViT-B-16.pt"
    )
    return 0
