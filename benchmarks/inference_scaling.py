"""Scaling of inference: time and memory against experts, classes, frames, batch and videos, with fitted exponents.

    python benchmarks/inference_scaling.py --json benchmarks/results/inference_scaling.json \\
        --plot benchmarks/results/inference_scaling.png

About four minutes on two cores. All points of an axis take turns in one process, both arms. The exponent is that of a
power law through all points; "at the end" fits the last three, where fixed costs weigh least. The expected order is
that of the work: an exponent below it is fixed cost, one above it is not allowed for. Memory is what a call takes above
what was held before it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from data import RATE, scene
from figure import save_panels
from fits import exponent
from harness import compare, environment
from report import table
from stages import released
from stages.gauge import measured
from stages.released import ReleasedHead
from stages.setting import PRESETS, QUICK_VIEWS, Setting
from stages.workload import RELEASED
from tqdm import tqdm

from mote_fast import VideoHead
from mote_fast.data import probe
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.views import plan_views
from mote_fast.runtime.environment import best_device

Calls = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Axis:
    """One quantity that grows.

    Attributes:
        sizes: its values.
        expected: order of the work of each arm in it.
        calls: size -> arm -> the call.
        rounds: turns of each arm and size.
        warmup: untimed turns before; none where a call takes seconds, and the model is warm by then.
    """

    sizes: tuple[int, ...]
    expected: dict[str, float]
    calls: Callable[[Setting, int], Calls]
    rounds: int
    warmup: int = 1


def over_experts(setting: Setting, experts: int) -> Calls:
    """The head, one view: merging reads every expert, and a folded head has one."""
    own = setting.head
    head = VideoHead(replace(own.config, experts=experts), own.train_class_features)
    return head_calls(setting, 1, setting.frames, head=head.to(setting.device).eval())


def over_classes(setting: Setting, classes: int) -> Calls:
    """The head, one view, against so many classes."""
    return head_calls(setting, 1, setting.frames, classes)


def over_frames(setting: Setting, frames: int) -> Calls:
    """The head, one view of so many frames: its attention is quadratic, but small beside its projections."""
    return head_calls(setting, 1, frames)


def over_batch(setting: Setting, batch: int) -> Calls:
    """The head, so many views at a time."""
    return head_calls(setting, batch, setting.frames)


def over_tower_frames(setting: Setting, frames: int) -> Calls:
    """The image tower, so many frames at a time."""
    towers = setting.model.clip
    pixels = setting.random(frames, 3, towers.image_size, towers.image_size)
    return {
        RELEASED: torch.no_grad()(lambda: towers.model.encode_image(pixels)),
        "mote_fast": torch.no_grad()(lambda: towers.encode_frames(pixels)),
    }


def over_videos(setting: Setting, videos: int) -> Calls:
    """So many videos from file to scores, one view each."""
    theirs, classes = ReleasedHead(setting.head).eval(), setting.classes
    wanted = plan_views(probe(setting.video).num_frames, setting.frames, QUICK_VIEWS).frame_indices.tolist()
    towers, ours = setting.model.clip, setting.folded

    def baseline() -> None:
        for _ in range(videos):
            released.classify(setting.video, wanted, towers, theirs, classes, QUICK_VIEWS.clips)

    def mote_fast() -> None:
        for _ in range(videos):
            ours.scores(setting.video, classes, QUICK_VIEWS)

    return {RELEASED: baseline, "mote_fast": mote_fast}


def head_calls(
    setting: Setting, views: int, frames: int, count: int | None = None, head: VideoHead | None = None
) -> Calls:
    """Both arms of the head at given sizes; "mote_fast, unfolded" merges at every call, as the baseline does."""
    head = setting.head if head is None else head
    folded = head.fold()
    theirs = ReleasedHead(head).eval()
    features = setting.random(views, frames, head.embed_dim)
    classes = setting.classes if count is None else setting.random(count, head.embed_dim, seed=4)
    return {
        RELEASED: torch.no_grad()(lambda: released.evaluate_views(theirs, features, classes)),
        "mote_fast, unfolded": torch.no_grad()(lambda: head(features, classes)),
        "mote_fast": torch.no_grad()(lambda: folded(features, classes)),
    }


def _orders(released_order: float, ours: float | None = None) -> dict[str, float]:
    order = released_order if ours is None else ours
    return {RELEASED: released_order, "mote_fast, unfolded": released_order, "mote_fast": order}


AXES = {
    "experts": Axis((1, 2, 4, 8, 16), _orders(1, 0), over_experts, 7),
    "classes": Axis((10, 100, 1000, 10_000), _orders(1), over_classes, 7),
    "frames": Axis((4, 8, 16, 32, 64), _orders(1), over_frames, 7),
    "batch": Axis((1, 2, 4, 8, 16, 32, 64), _orders(1), over_batch, 5),
    "frames of the tower": Axis((1, 2, 4, 8, 16), _orders(1), over_tower_frames, 2, warmup=0),
    "videos": Axis((1, 2, 4), _orders(1), over_videos, 2, warmup=0),
}


def measure(setting: Setting, name: str) -> Iterator[dict[str, Any]]:
    """Measure an axis: one row for every size and arm."""
    axis = AXES[name]
    calls = {(size, arm): call for size in axis.sizes for arm, call in axis.calls(setting, size).items()}
    labels = {f"{arm} {size}": call for (size, arm), call in calls.items()}
    timings = compare(labels, setting.rounds(axis.rounds), axis.warmup)
    for (size, arm), call in calls.items():
        timing = timings[f"{arm} {size}"]
        mib = measured(call, setting.device)[1]
        yield {
            "axis": name,
            "size": size,
            "arm": arm,
            "median_ms": round(1e3 * timing.median, 4),
            "p20_p80_ms": [round(1e3 * timing.p20, 4), round(1e3 * timing.p80, 4)],
            "peak_mib": None if mib is None else round(mib, 2),
        }


def fits_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The exponents of every axis and arm, beside the expected order."""
    found = []
    for name in dict.fromkeys(row["axis"] for row in rows):
        for arm in dict.fromkeys(row["arm"] for row in rows if row["axis"] == name):
            points = [(row["size"], row["median_ms"]) for row in rows if (row["axis"], row["arm"]) == (name, arm)]
            found.append(
                {
                    "axis": name,
                    "arm": arm,
                    "expected": AXES[name].expected[arm],
                    "exponent": round(exponent(points), 3),
                    "at_the_end": round(exponent(points, last=3), 3),
                }
            )
    return found


def plot(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Time above, memory in a file beside it; both axes logarithmic."""
    for key, stem, what in (("median_ms", path.stem, "ms"), ("peak_mib", f"{path.stem}_memory", "MiB")):
        panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for row in rows:
            # Nothing measurable has no place on a logarithmic axis.
            if row[key]:
                panels.setdefault(f"{row['axis']}, {what}", {}).setdefault(row["arm"], []).append(
                    (row["size"], row[key])
                )
        if panels:
            save_panels(path.with_stem(stem), title, "size", panels, logarithmic=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="vit-b-16")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--quick", action="store_true", help="the tiny preset, few rounds")
    parser.add_argument("--json", type=Path, help="write rows and fits here")
    parser.add_argument("--plot", type=Path, help="PNG of the times; the memory's goes beside it")
    options = parser.parse_args()
    preset = "tiny" if options.quick else options.preset
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        video = Path(write_video(Path(folder) / "generated.mp4", scene(2 * RATE), RATE, g=250, preset="medium"))
        setting = Setting(preset, video, Path(folder), torch.device(options.device), quick=options.quick)
        for name in tqdm(options.axes, unit="axis", disable=None):
            rows += measure(setting, name)
    fits = fits_of(rows)
    lines = [
        [f"{fit['axis']}: {fit['arm']}", *(f"{fit[key]:.2f}" for key in ("expected", "exponent", "at_the_end"))]
        for fit in fits
    ]
    print(table(["time grows as a power of", "expected", "exponent", "at the end"], lines))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        report = {"environment": environment(), "setting": setting.described(), "rows": rows, "fits": fits}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot(rows, options.plot, f"Inference, {PRESETS[preset]}, {options.device}")


if __name__ == "__main__":
    main()
