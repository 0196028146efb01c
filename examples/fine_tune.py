"""Teach a model the classes of a folder, by its head alone: frames are encoded once, so a CPU suffices.

python examples/fine_tune.py                                  # drawn videos, with the model of the package
python examples/fine_tune.py videos/mine --model mote-b16-k400

`mote-fast train` tunes the image tower too, validates, resumes, and reads lists of any size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from drawn_clips import draw_folder

import mote_fast

STEPS = 150
# Names of the drawn classes that tell the model nothing before it is trained.
INVENTED = ("arrival", "departure", "delivery")


def accuracy(clf: mote_fast.VideoClassifier, items: list[mote_fast.data.VideoItem]) -> float:
    """Return the share of videos whose best label is theirs."""
    return sum(clf.classify(item.path)[0].index == item.label for item in items) / len(items)


def main() -> None:
    """Train on every second video, judge on the others before and after, and save the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="it has a sub-folder for each class")
    parser.add_argument("--model", default="tiny", help="a name of mote_fast.list_models(), a folder or a file")
    given = parser.parse_args()
    torch.manual_seed(0)
    items, folders = mote_fast.data.scan_folder(given.folder or draw_folder(Path("drawn"), INVENTED))
    train, held_out = items[::2], items[1::2]

    clf = mote_fast.load(given.model)
    clf.classes = [folder.replace("_", " ") for folder in folders]
    print(f"before: {accuracy(clf, held_out):.0%}")
    classes = clf.class_features(clf.classes)
    features = torch.cat([clf.view_features(item.path) for item in train])  # [N, T, d]
    targets = torch.tensor([item.label for item in train])
    optimizer = mote_fast.head_optimizer(clf.head, lr=1e-3)
    for step in range(STEPS):
        batch = torch.randperm(len(train))[:8]
        loss = mote_fast.training_loss(clf.head, features[batch], classes, targets[batch], clf.clip.logit_scale)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        if step % 30 == 0:
            print(f"step {step:4}  loss {loss.total.item():.3f}")
    print(f"after: {accuracy(clf, held_out):.0%}")
    clf.save("my_model")


if __name__ == "__main__":
    main()
