"""Collections: the engines of ``mote_fast.batch`` against a plain loop over ``classify`` and the official one.

    python benchmarks/batch.py --json benchmarks/results/batch.json --clips ../shared/clips
    python benchmarks/batch.py --preset vit-test --videos 240

Every arm runs in a process of its own, with random weights and labels that are encoded before. A rate counts from the
first rows that are there to the last, so that no start of processes is in it; "start" is the time to those first rows.
Memory is the most that the arm's processes held, pages that they share counted once, libraries and weights included.
The model computes with one thread, unless the arm says otherwise; durability writes a file each four videos here, where
a run of ten million writes one each 2,442.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import official
import torch
from harness import OFFICIAL, environment
from rows import Result, Row, check_clean, table, write_json
from setting import HEADS, Setting, write_scene

from mote_fast import VideoClassifier, batch
from mote_fast.batch.collection_runs import RunState
from mote_fast.data import probe
from mote_fast.data.views import Views, plan_views

PRESETS = {name.lower(): name for name in HEADS}
# Few labels: class features are encoded once, and no part of a rate.
VIEWS, LABELS, BLOCK = "1x1", 8, 4
LOOP, LOOP_TWO, STREAM = "plain loop", "plain loop, two threads", "stream, nothing written"
LOCAL, LOCAL_ONE, LOCAL_RARE = "local", "local, one worker", "local, a file at the end"
RAY, RAY_TWO = "ray, one actor", "ray, two actors"
ARMS = (OFFICIAL, LOOP, LOOP_TWO, STREAM, LOCAL_ONE, LOCAL, LOCAL_RARE, RAY, RAY_TWO)

# Seconds between two looks at the memory.
LOOK = 0.2


@dataclass
class Seen:
    """When rows were there: the first ones, and the last; and the most memory, MiB."""

    began: float
    first: tuple[float, int] | None = None
    last: tuple[float, int] | None = None
    peak: float = 0.0

    def note(self, count: int) -> None:
        """Note that so many videos are judged."""
        if count and (self.last is None or count > self.last[1]):
            self.last = (time.perf_counter(), count)
            self.first = self.first or self.last

    def state(self, state: RunState) -> None:
        """Note the progress of a run."""
        self.note(state.judged)

    @property
    def rate(self) -> float:
        """Videos a second between the first rows and the last."""
        assert self.first is not None
        assert self.last is not None
        return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])

    @property
    def start(self) -> float:
        """Seconds to the first rows."""
        assert self.first is not None
        return self.first[0] - self.began


def make(preset: str, folded: bool = True) -> VideoClassifier:
    """The model of all arms, in whichever process."""
    torch.set_num_threads(1)
    setting = Setting(Path(), (preset,))
    model = setting.folded if folded else setting.model
    model.feature_cache = None
    return model


def run_arm(arm: str, preset: str, videos: Sequence[str], folder: str) -> Seen:
    """Judge the videos as the arm does, in this process and those that it starts."""
    labels = [f"label {number}" for number in range(LABELS)]
    model = None if arm in (RAY, RAY_TWO) else make(preset, folded=arm != OFFICIAL)
    if arm == LOOP_TWO:
        torch.set_num_threads(2)
    seen = Seen(time.perf_counter())
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(seen, ended))
    watch.start()
    try:
        _judge(arm, preset, model, labels, videos, Path(folder) / "rows", seen)
    finally:
        ended.set()
        watch.join()
    return seen


def _judge(
    arm: str,
    preset: str,
    model: VideoClassifier | None,
    labels: Sequence[str],
    videos: Sequence[str],
    output: Path,
    seen: Seen,
) -> None:
    if model is None:
        # Its processes import this file for ``make``.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        actors = 2 if arm == RAY_TWO else 1
        options = {"model": partial(make, preset), "engine": "ray", "actors": actors, "workers": 1}
        named = {str(number): path for number, path in enumerate(videos)}
        batch.classify(named, output, labels=labels, views=VIEWS, durable_every=BLOCK, progress=seen.state, **options)
        return
    classes = model.class_features(labels)
    if arm in (LOCAL, LOCAL_ONE, LOCAL_RARE):
        named = {str(number): path for number, path in enumerate(videos)}
        every = len(videos) if arm == LOCAL_RARE else BLOCK
        workers = 1 if arm == LOCAL_ONE else 2
        options = {"model": model, "workers": workers, "durable_every": every}
        batch.classify(named, output, labels=labels, views=VIEWS, progress=seen.state, **options)
        return
    results: Iterator[object]
    if arm == OFFICIAL:
        results = map(_official(model, classes), videos)
    elif arm == STREAM:
        results = model.stream_results(videos, labels, views=VIEWS, class_features=classes, workers=2)
    else:
        results = (model.classify(video, labels, views=VIEWS, class_features=classes) for video in videos)
    for count, _ in enumerate(results, 1):
        seen.note(count)


def _official(model: VideoClassifier, classes: torch.Tensor) -> Callable[[str], object]:
    head = official.OfficialHead(model.head).eval()

    @torch.no_grad()
    def judge(video: str) -> torch.Tensor:
        plan = plan_views(probe(video).num_frames, model.frames, Views.parse(VIEWS))
        wanted = plan.frame_indices[plan.positions].flatten().tolist()
        return official.classify(Path(video), wanted, model.clip, head, classes, 1)

    return judge


def _watch(seen: Seen, ended: threading.Event) -> None:
    while not ended.wait(LOOK):
        seen.peak = max(seen.peak, memory_below(os.getpid()))


def memory_below(ancestor: int) -> float:
    """MiB of a process and those below it, shared pages counted once; 0 where the system does not tell."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    below = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    held = 0
    for pid in below:
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            held += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return held / 1024


def measure(preset: str, arms: Sequence[str], cases: dict[str, list[str]], turns: int) -> Iterator[Row]:
    """Every arm on every list of videos, in turns; medians of the turns."""
    for case, videos in cases.items():
        found: dict[str, list[Seen]] = {arm: [] for arm in arms}
        for _ in range(turns):
            for arm in arms:
                with (
                    tempfile.TemporaryDirectory() as folder,
                    # Not a pool, whose processes may start none.
                    ProcessPoolExecutor(1, get_context("spawn")) as process,
                ):
                    found[arm].append(process.submit(run_arm, arm, preset, videos, folder).result())
        base = _median([seen.rate for seen in found[arms[0]]])
        for arm, seen in found.items():
            row = partial(Row, "batch", f"{case}, {preset}", arm)
            rate = _median([each.rate for each in seen])
            yield row("throughput", "videos/s", rate, turns=turns)
            yield row("ratio", "x", rate / base)
            yield row("start", "s", _median([each.start for each in seen]))
            yield row("memory", "MiB", _median([each.peak for each in seen]))


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="vit-b-16")
    parser.add_argument("--videos", type=int, default=24, help="of each kind")
    parser.add_argument("--turns", type=int, default=1, help="of each arm; the figure is their median")
    parser.add_argument("--seconds", type=float, default=10, help="of a generated video")
    parser.add_argument("--clips", type=Path, help="folder of real clips; those named k400_* are measured too")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--json", type=Path, help="write everything here")
    options = parser.parse_args(arguments)
    where = environment()
    if options.json:
        check_clean(where)
    arms = [arm for arm in options.arms if not arm.startswith("ray") or find_spec("ray") is not None]
    left_out = {arm: "ray is not installed" for arm in options.arms if arm not in arms}
    print("\n".join(f"{name}: {each}" for name, each in where.items()), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        generated = write_scene(Path(folder) / "generated.mp4", options.seconds)
        cases = {"generated H.264": [str(generated)] * options.videos}
        if options.clips is not None:
            real = itertools.cycle(sorted(map(str, options.clips.resolve().glob("k400_*"))))
            cases["real clips"] = list(itertools.islice(real, options.videos))
        rows = []
        for row in measure(PRESETS[options.preset], arms, cases, options.turns):
            rows.append(row)
            print(f"{row.case}: {row.arm}: {row.metric} {row.median:.4g} {row.unit}", flush=True)
    for case in cases:
        print("\n" + table([row for row in rows if row.case.startswith(case)]))
    if options.json:
        described = {name: getattr(options, name) for name in ("preset", "videos", "turns", "seconds")}
        write_json(Result(where, {**described, "left_out": left_out}, rows), options.json)
    return 0


if __name__ == "__main__":
    # Under the name by which other processes find its functions.
    sys.exit(import_module("batch").main())
