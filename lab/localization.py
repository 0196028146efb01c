"""How well timelines find when something happens in drawn videos, and that nothing does in background alone.

Draws three sets of untrimmed videos: some to calibrate the level of rejection on, some to judge, and some of background
alone. Prints the table of docs/timeline.md.

python lab/localization.py --videos 60 --background 100
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch.nn import functional as F
from world.splits import COMBINATIONS, splits
from world.untrimmed import Truth, write_untrimmed

from mote_fast import Segment, VideoClassifier, load
from mote_fast.evaluation.localization import Localization, localization_of
from mote_fast.timeline.judgement import Rules, judge
from mote_fast.timeline.rejection import Rejecter
from mote_fast.timeline.scorer import WindowScores
from mote_fast.timeline.time_segments import edges_of, find_segments, probabilities
from mote_fast.timeline.windows import plan_windows

# Of drawn actions, which last 1.2 to 2.4 seconds.
WINDOW, HOP = 1.0, 0.125
SMOOTH, MIN_SECONDS = 0.5, 0.5
# Share of true segments that the calibrated level keeps.
RECALL = 0.95
WORDS = ("an empty room", "a background")
# Every untrimmed video begins with a gap of at least one second.
EXAMPLE = (0.0, 1.0)
PROBABILITIES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


class Scored(NamedTuple):
    """A video: its name, the true segments, the scores of its windows, its duration."""

    name: str
    truths: list[Truth]
    scores: WindowScores
    duration: float


class Row(NamedTuple):
    """A way to find segments, and what comes of it; shares are percent."""

    name: str
    found: Localization
    kept: float
    silent: float


def score_videos(clf: VideoClassifier, classes: torch.Tensor, folder: Path, kind: str, count: int) -> list[Scored]:
    """Write videos, and score their windows; the features of all windows are kept, for examples of background."""
    split, scored = splits()[COMBINATIONS], []
    for number in range(count):
        path = folder / f"{kind}{number:03d}.mp4"
        actions = 0 if kind == "background" else 2 + number % 5
        truths = write_untrimmed(path, split.classes, actions, (kind, number))
        plan = plan_windows(clf.frames, window=WINDOW, hop=HOP)
        with clf._open(str(path), plan, None) as (facts, chunks):
            scorer = clf._scorer(plan, classes, Rejecter("example", example=EXAMPLE))
            scores, _ = clf._score(facts, chunks, scorer, plan, None)
        path.unlink()
        scored.append(Scored(path.name, truths, scores, facts.duration))
    return scored


def covered(segments: Sequence[Segment], truth: Truth) -> bool:
    """Whether half of a true segment has a label, right or wrong."""
    shared = (max(0.0, min(each.end, truth.end) - max(each.start, truth.start)) for each in segments)
    return sum(shared) >= 0.5 * (truth.end - truth.start)


def judge_all(
    videos: Sequence[Scored], labels: Sequence[str], rejecter: Rejecter, known: float | None, scale: float
) -> dict[str, list[Segment]]:
    rules = Rules(WINDOW, HOP, SMOOTH, MIN_SECONDS)
    return {
        each.name: judge(each.scores, labels, each.duration, rejecter, rules, known=known, scale=scale).segments
        for each in videos
    }


def baseline(videos: Sequence[Scored], labels: Sequence[str], least: float, scale: float) -> dict[str, list[Segment]]:
    """The largest probability of each window by itself, where it is at least a threshold."""
    found = {}
    for each in videos:
        chances = probabilities(each.scores.cosines, scale)
        edges = edges_of(each.scores.times, each.duration)
        found[each.name] = find_segments(chances, chances.amax(1) >= least, edges, labels)
    return found


def row(name: str, found: dict[str, list[Segment]], videos: Sequence[Scored]) -> Row:
    """Judge what was found in videos with actions and in those of background."""
    true = {each.name: each.truths for each in videos if each.truths}
    kept = [covered(found[name], truth) for name, truths in true.items() for truth in truths]
    silent = [not found[each.name] for each in videos if not each.truths]
    share = 100 * sum(silent) / len(silent) if silent else math.nan
    acting = {name: found[name] for name in true}
    return Row(name, localization_of(acting, true), 100 * sum(kept) / len(kept), share)


def calibrated(videos: Sequence[Scored], labels: Sequence[str], scale: float) -> float:
    """The highest level, in hundredths, that keeps ``RECALL`` of the true segments."""
    for hundredths in range(100, -100, -1):
        level = hundredths / 100
        found = judge_all(videos, labels, Rejecter("level", level), None, scale)
        if row("", found, videos).kept >= 100 * RECALL:
            return level
    return -1.0


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="a name, or a folder")
    parser.add_argument("--videos", type=int, default=60, help="videos with actions to judge")
    parser.add_argument("--background", type=int, default=100, help="videos without actions")
    parser.add_argument("--calibrate", type=int, default=30, help="videos with actions to calibrate on")
    options = parser.parse_args()
    clf = load(options.model).fold()
    labels = splits()[COMBINATIONS].labels
    classes, scale = clf.class_features(labels), float(clf.clip.logit_scale)
    with TemporaryDirectory() as folder:
        tuning, acting, still, elsewhere = (
            score_videos(clf, classes, Path(folder), kind, count)
            for kind, count in (
                ("calibrate", options.calibrate),
                ("test", options.videos),
                ("background", options.background),
                ("elsewhere", 5),
            )
        )
    level = calibrated(tuning, labels, scale)
    videos = [*acting, *still]
    rows = [row(f"baseline, p >= {least:g}", baseline(videos, labels, least, scale), videos) for least in PROBABILITIES]
    best = max(rows, key=lambda each: each.found.precision[0.5])
    rows = [best]
    gaps = [each.scores.pooled[torch.tensor(each.scores.times) < each.truths[0].start - 0.5] for each in elsewhere]
    vector = F.normalize(torch.cat(gaps).float().mean(0), dim=-1)
    words = F.normalize(clf.class_features(WORDS), dim=-1)
    for name, rejecter, background in (
        ("none", Rejecter("none"), None),
        (f"level {level:g}", Rejecter("level", level), None),
        ("auto, with this level", Rejecter("auto"), None),
        ("words", Rejecter("words"), words),
        ("embedding of other videos", Rejecter("vectors"), vector[None]),
        ("example, the first second", Rejecter("example", example=EXAMPLE), None),
    ):
        chosen = [each if background is None else _compared(each, background) for each in videos]
        rows.append(row(name, judge_all(chosen, labels, rejecter, level, scale), chosen))
    print("| segments by | mAP@0.3 | @0.5 | @0.7 | boundary error, s | true segments kept | background silent |")
    print("|---|---|---|---|---|---|---|")
    for each in rows:
        precision = " | ".join(f"{value:.1f}" for value in each.found.precision.values())
        error = each.found.boundary_error
        print(f"| {each.name} | {precision} | {error:.2f} | {each.kept:.1f} % | {each.silent:.1f} % |")


def _compared(each: Scored, background: torch.Tensor) -> Scored:
    """The video with its windows' cosines with a background [K, d]."""
    return each._replace(scores=each.scores._replace(background=each.scores.pooled.float() @ background.T))


if __name__ == "__main__":
    main()
