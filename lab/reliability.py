"""How far the scores of classify are probabilities, and how well a level tells videos that show none of the labels.

Draws videos of classes that the head was not trained on, each classified against all of them, and videos of background
alone. Writes a reliability figure, and prints the figures of docs/timeline.md.

python lab/reliability.py --videos 6 --figure docs/assets/reliability.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from world.splits import COMBINATIONS, splits
from world.untrimmed import write_untrimmed
from world.write import write_action

from mote_fast import VideoClassifier, load
from mote_fast.model.rejecting import WindowJudge
from mote_fast.timeline.rejection import Rejecter, levels_of

BINS = 10


def looked_at(clf: VideoClassifier, classes: Tensor, path: Path) -> tuple[Tensor, float]:
    """The scores [C] of a video, as ``classify`` gives them, and its level."""
    frames = clf.view_features(path, "3x1")
    judged = WindowJudge(clf, classes, Rejecter("auto"))(frames, [])
    means = (each.mean(0, keepdim=True) for each in (judged.cosines, judged.reference, judged.background))
    return clf.scores_from_features(frames, classes), float(levels_of(Rejecter("auto"), *means))


def reliability(confidence: Tensor, right: Tensor) -> tuple[list[tuple[float, float, int]], float]:
    """Mean confidence, accuracy and number of videos of each bin that has any; and the expected calibration error."""
    which = (confidence * BINS).long().clamp(max=BINS - 1)
    rows = []
    for index in range(BINS):
        inside = which == index
        if inside.any():
            rows.append((float(confidence[inside].mean()), float(right[inside].double().mean()), int(inside.sum())))
    error = sum(count * abs(mean - accuracy) for mean, accuracy, count in rows) / len(confidence)
    return rows, error


def area(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that a positive video ranks above a negative one."""
    first, second = torch.tensor(positive)[:, None], torch.tensor(negative)
    return float((first > second).double().mean() + 0.5 * (first == second).double().mean())


def draw_figure(rows: Sequence[tuple[float, float, int]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="C7", linestyle="--", linewidth=1)
    axes.plot([mean for mean, _, _ in rows], [accuracy for _, accuracy, _ in rows], marker="o")
    for mean, accuracy, count in rows:
        axes.annotate(str(count), (mean, accuracy), textcoords="offset points", xytext=(6, -10), fontsize=7)
    axes.set(xlabel="score of the first label", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    figure.savefig(path, dpi=110)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="a name, or a folder")
    parser.add_argument("--videos", type=int, default=6, help="of each class")
    parser.add_argument("--background", type=int, default=100, help="videos of background alone")
    parser.add_argument("--figure", type=Path, help="PNG to write")
    options = parser.parse_args()
    clf, split = load(options.model).fold(), splits()[COMBINATIONS]
    classes = clf.class_features(split.labels)
    confidence, right, levels, best, none_levels, none_best = [], [], [], [], [], []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        for label, (thing, action) in enumerate(split.classes):
            for number in range(options.videos):
                write_action(path, thing, action, seed=("reliability", number))
                scores, level = looked_at(clf, classes, path)
                confidence.append(float(scores.amax()))
                right.append(int(scores.argmax()) == label)
                levels.append(level)
        best = confidence
        for number in range(options.background):
            write_untrimmed(path, split.classes, 0, ("reliability", number), gaps=1)
            scores, level = looked_at(clf, classes, path)
            none_best.append(float(scores.amax()))
            none_levels.append(level)
    rows, error = reliability(torch.tensor(confidence), torch.tensor(right))
    print("| mean score | right | videos |\n|---|---|---|")
    for mean, accuracy, count in rows:
        print(f"| {mean:.2f} | {100 * accuracy:.1f} % | {count} |")
    print(f"accuracy {100 * sum(right) / len(right):.1f} %, expected calibration error {error:.3f}")
    print(f"area under ROC, action against background: level {area(levels, none_levels):.3f}, ", end="")
    print(f"largest score {area(best, none_best):.3f}")
    least = float(torch.tensor(levels).quantile(0.05))
    silent = sum(level < least for level in none_levels) / len(none_levels)
    print(f"level {least:.2f} keeps 95 % of the actions and rejects {100 * silent:.1f} % of the backgrounds")
    if options.figure is not None:
        draw_figure(rows, options.figure)


if __name__ == "__main__":
    main()
