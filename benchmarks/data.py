"""Loading: processor time and memory of a clip, ours against decord + Pillow, whatever the file looks like.

    python benchmarks/data.py --json benchmarks/results/data.json --plot benchmarks/results/data.png

Every arm makes the same clip of the same file: 8 frames, evaluation or training transforms, float32 pixels. The arms
take turns in one process with one thread each, and the figure is processor time, which other load disturbs least:
clips per CPU-second is what one core feeds. The re-encoded rows compare our arms on the file that `mote-fast prepare
reencode` wrote with the released recipe on the original.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from figure import save_bars
from harness import Timing, compare, environment
from PIL import Image
from released_loading import load_clip
from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.decode import available_backends
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.items import VideoItem
from mote_fast.data.plan import Augmentation, ClipRecipe
from mote_fast.data.transforms import normalize
from mote_fast.errors import VideoError
from mote_fast.prepare.reencode import reencode

RELEASED = "released"
FRAMES, SIZE = 8, 224
# Ten seconds at Kinetics' usual size and rate.
SECONDS, RATE, HEIGHT, WIDTH = 10, 30, 256, 340

TRANSFORMS: dict[str, Augmentation] = {"evaluation": "none", "training": "kinetics"}


class Source(NamedTuple):
    """A file to measure, and the one that the released recipe reads in its place."""

    name: str
    path: Path
    original: Path


def scene(frames: int) -> np.ndarray:
    """A textured background that the camera circles over, and a square that crosses it: uint8 [frames, H, W, 3]."""
    texture = np.random.default_rng(0).integers(0, 255, (HEIGHT // 4 + 64, WIDTH // 4 + 64, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(texture).resize((WIDTH + 256, HEIGHT + 256), Image.Resampling.BICUBIC))
    out = np.empty((frames, HEIGHT, WIDTH, 3), np.uint8)
    for at in range(frames):
        top, left = int(64 + 60 * np.sin(at / 20)), int(64 + 60 * np.cos(at / 27))
        out[at] = wide[top : top + HEIGHT, left : left + WIDTH]
        down, across = (at * 3) % (HEIGHT - 60), (at * 5) % (WIDTH - 60)
        out[at, down : down + 60, across : across + 60] = (at % 255, 128, 255 - at % 255)
    return out


def sources(folder: Path, clips: Path | None, quick: bool) -> list[Source]:
    """Write the generated files, re-encode one of them and each real clip, and return all of them."""
    frames = scene(SECONDS * RATE)
    originals = folder / "originals"
    originals.mkdir()
    written: dict[str, str | Path] = {}
    for interval in (12, 250):
        name = f"h264, key interval {interval}"
        written[name] = write_video(originals / f"{interval}.mp4", frames, RATE, g=interval, preset="medium")
    if not quick:
        written["mpeg4, avi"] = write_video(originals / "mpeg4.avi", frames, RATE, codec="mpeg4", g=12)
        written["vp9"] = write_video(
            originals / "vp9.webm", frames, RATE, codec="libvpx-vp9", g=60, deadline="realtime", **{"cpu-used": 8}
        )
    written |= {path.name: path for path in sorted(clips.glob("k400_*"))} if clips is not None else {}
    found = [Source(name, Path(path), Path(path)) for name, path in written.items()]
    for source in list(found):
        names = reencode(source.path.parent, folder / "again", [source.path.name]).names
        target = folder / "again" / names[source.path.name]
        found.append(Source(f"{source.name}, re-encoded", target, source.original))
    return found


def arms_of(source: Source, augmentation: Augmentation) -> dict[str, Callable[[], Tensor]]:
    """The ways to load one clip of a file; those that cannot serve it are left out."""
    recipe = ClipRecipe(FRAMES, SIZE, augmentation=augmentation)
    items, original = [VideoItem(str(source.path), 0)], [VideoItem(str(source.original), 0)]
    plan = VideoDataset(original, recipe).plan(0)[1]
    arms: dict[str, Callable[[], Tensor]] = {RELEASED: partial(load_clip, str(source.original), plan, SIZE)}
    for backend in ("auto", *(name for name, why in available_backends().items() if why is None)):
        load = partial(_load, VideoDataset(items, recipe, decode_backend=backend))
        try:
            load()
        except VideoError:
            continue
        arms[backend] = load
    return arms


def _load(dataset: VideoDataset) -> Tensor:
    return normalize(dataset.load(0).pixels)


def difference(arms: dict[str, Callable[[], Tensor]]) -> float:
    """Mean absolute difference of our pixels and the released recipe's, in normalised units."""
    return (arms["auto"]().squeeze(0) - arms[RELEASED]()).abs().mean().item()


def peak_memory(call: Callable[[], object]) -> float:
    """MiB that a process grows by over ten calls; in a process of its own, for what was once taken is kept."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_growth, (call,))


def _growth(call: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10):
        call()
    return round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1)


def row_of(arm: str, timing: Timing, released: Timing, memory: float) -> dict[str, Any]:
    return {
        "arm": arm,
        "cpu_ms": round(1e3 * timing.median, 2),
        "p20_p80_cpu_ms": [round(1e3 * timing.p20, 2), round(1e3 * timing.p80, 2)],
        "clips_per_cpu_second": round(1 / timing.median, 2),
        "frames_per_cpu_second": round(FRAMES / timing.median, 1),
        "ratio": round(released.median / timing.median, 2),
        "growth_mib": memory,
    }


def measure(found: list[Source], rounds: int) -> list[dict[str, Any]]:
    rows = []
    for source in found:
        for transforms, augmentation in TRANSFORMS.items():
            arms = arms_of(source, augmentation)
            timings = compare(arms, rounds, warmup=1, clock=time.process_time)
            common = {"file": source.name, "bytes": source.path.stat().st_size, "transforms": transforms}
            if source.path == source.original:
                common["pixel_difference"] = round(difference(arms), 4)
            for arm, timing in timings.items():
                row = common | row_of(arm, timing, timings[RELEASED], peak_memory(arms[arm]))
                rows.append(row)
                print("{file:42} {transforms:10} {arm:10} {cpu_ms:8.1f} ms CPU {ratio:5.2f}x".format(**row), flush=True)
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["transforms"] == "evaluation":
            groups.setdefault(row["file"], {})[row["arm"]] = row["clips_per_cpu_second"]
    save_bars(path, f"Clips of {FRAMES} frames, evaluation transforms", "clips per CPU-second", groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of real clips; those named k400_* are measured too")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each arm (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="the H.264 files only, five rounds")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="PNG")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = sources(Path(folder), options.clips, options.quick)
        rows = measure(found, 5 if options.quick else options.rounds)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
