"""Loading, ours against decord + Pillow: stages "decode" and "transform", and clips of files of every kind.

Every arm makes the same clip of a file: 8 frames, evaluation or training transforms, float32 pixels. The arms take
turns with one thread each, and the figure is processor time, which other load disturbs least: clips per CPU-second is
what one core feeds. The re-encoded rows compare our arms on the file that `mote-fast prepare reencode` wrote with the
official recipe on the original.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import official
import torch
from harness import OFFICIAL, OURS, Arm, Workload, measure
from rows import Row
from setting import RATE, SECONDS, Setting, scene
from torch import Tensor

from mote_fast.data import probe, read_frames
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.decode import available_backends
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.items import VideoItem
from mote_fast.data.plan import Augmentation, ClipRecipe
from mote_fast.data.transforms import Preprocessing, evaluation_pixels, normalize
from mote_fast.errors import VideoError
from mote_fast.prepare.reencode import reencode

FRAMES, SIZE = 8, 224
# Decoders round colours differently, and Pillow rounds between its two passes.
PIXEL_TOLERANCE = 0.05
TRANSFORMS: dict[str, Augmentation] = {"evaluation": "none", "training": "kinetics"}


class Source(NamedTuple):
    """A file to measure, and the one that the official recipe reads in its place."""

    name: str
    path: Path
    original: Path


def backends() -> dict[str, str]:
    """Arms by the decoders that this machine has."""
    return {OURS: "auto"} | {name: name for name, why in available_backends().items() if why is None}


def decode(setting: Setting) -> Iterator[Row]:
    """Decode the distinct frames of three views; the official recipe asks for every view's frames in turn."""
    plan, clips = setting.plan, setting.views.clips
    wanted = plan.frame_indices[plan.positions].flatten().tolist()

    def ours(backend: str) -> Tensor:
        info = probe(setting.video)
        return plan.gather(read_frames(setting.video, plan.frame_indices, backend, info=info)[:, None]).flatten(0, 1)

    arms = [Arm(OFFICIAL, lambda: torch.from_numpy(official.read(setting.video, wanted)), clips=clips)]
    arms += [
        Arm(name, partial(ours, backend), clips=clips, tolerance=PIXEL_TOLERANCE)
        for name, backend in backends().items()
    ]
    yield from measure(Workload("decode", "decode", arms, 9), setting)


def transform(setting: Setting) -> Iterator[Row]:
    """Scale, crop and normalise the frames of three views."""
    clip, plan, clips = setting.model.clip, setting.plan, setting.views.clips
    frames = read_frames(setting.video, plan.frame_indices)
    own = clip.config.preprocessing
    repeated = plan.gather(frames[:, None]).flatten(0, 1).numpy()

    def ours() -> Tensor:
        pixels = evaluation_pixels(frames.to(setting.device), own, setting.views.crops, setting.dtype)
        return plan.gather(pixels).flatten(0, 1)

    def theirs() -> Tensor:
        return official.transform(repeated, own.size, own.mean, own.std).to(setting.device)

    arms = [Arm(OFFICIAL, theirs, clips=clips), Arm(OURS, ours, clips=clips, tolerance=PIXEL_TOLERANCE)]
    yield from measure(Workload("transform", "transform", arms, 15), setting)


def data(setting: Setting) -> Iterator[Row]:
    """Every file with both kinds of transforms."""
    for source in sources(setting.folder, setting.clips, setting.quick):
        for name, augmentation in TRANSFORMS.items():
            arms = arms_of(source, augmentation)
            case = f"{source.name}, {name}"
            workload = Workload("data", case, arms, 15, warmup=1, clock=time.process_time)
            for row in measure(workload, setting):
                yield row._replace(unit="clips/CPU-s") if row.metric == "throughput" else row
            yield Row("data", case, OURS, "file", "bytes", source.path.stat().st_size)
            if source.path == source.original:
                theirs, ours = (arm.call() for arm in arms[:2])
                yield Row("data", case, OURS, "pixel difference", "", (ours - theirs).abs().mean().item())


def sources(folder: Path, clips: Path | None, quick: bool) -> list[Source]:
    """Write the generated files, re-encode each of them and each real clip, and return all of them."""
    frames: np.ndarray = scene(SECONDS * RATE)
    originals = folder / "originals"
    originals.mkdir()
    written: dict[str, str | Path] = {}
    for interval in (12, 250):
        name = f"h264, key interval {interval}"
        written[name] = write_video(originals / f"{interval}.mp4", frames, RATE, g=interval, preset="medium")
    if not quick:
        written["mpeg4, avi"] = write_video(originals / "mpeg4.avi", frames, RATE, codec="mpeg4", g=12)
        fast: dict[str, Any] = {"deadline": "realtime", "cpu-used": 8}
        written["vp9"] = write_video(originals / "vp9.webm", frames, RATE, codec="libvpx-vp9", g=60, **fast)
    written |= {path.name: path for path in sorted(clips.glob("k400_*"))} if clips is not None else {}
    found = [Source(name, Path(path), Path(path)) for name, path in written.items()]
    for source in list(found):
        names = reencode(source.path.parent, folder / "again", [source.path.name]).names
        target = folder / "again" / names[source.path.name]
        found.append(Source(f"{source.name}, re-encoded", target, source.original))
    return found


def arms_of(source: Source, augmentation: Augmentation) -> list[Arm]:
    """The ways to load one clip of a file; those that cannot serve it are left out."""
    recipe = ClipRecipe(FRAMES, Preprocessing(SIZE), augmentation=augmentation)
    items, original = [VideoItem(str(source.path), 0)], [VideoItem(str(source.original), 0)]
    plan = VideoDataset(original, recipe).plan(0)[1]
    # Pixels differ by the decoder and by the file; their mean difference is a figure of its own.
    arms = [Arm(OFFICIAL, partial(official.load_clip, str(source.original), plan, SIZE), clips=1, tolerance=None)]
    for name, backend in backends().items():
        arm = Arm(name, partial(_load, VideoDataset(items, recipe, decode_backend=backend)), clips=1, tolerance=None)
        try:
            arm.call()
        except VideoError:
            continue
        arms.append(arm)
    return arms


def _load(dataset: VideoDataset) -> Tensor:
    return normalize(dataset.load(0).pixels).squeeze(0)
