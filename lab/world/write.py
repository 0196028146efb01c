"""Writes the world as h264 files with lists, which the library reads like any other videos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.items import VideoItem
from mote_fast.prepare.lists import format_labels, format_list
from mote_fast.runtime.files import write_texts
from mote_fast.runtime.seeding import generator_of
from world.draw import draw
from world.scenes import HOME, Domain, video_scenes
from world.splits import CLOSE_SET, WorldSplit, splits
from world.words import Object

# The list of training videos of the close set; every split also has a list of test videos under its own name.
TRAIN = "train"
# Heights and widths to draw from, pixels.
_SIDES = (64, 72, 80)
# With its defaults x264 is not deterministic: its macroblock tree gives several files for the same frames, and its
# choices depend on the number of cores and on their instruction set.
ENCODER = {"threads": 1, "x264-params": "mbtree=0:cpu-independent=1"}


def write_action(
    path: Path, thing: Object, action: str, *, domain: Domain = HOME, seed: tuple[int | str, ...] = (0,)
) -> Path:
    """Write one video of ``thing`` performing ``action``.

    The file's bytes are a function of the arguments, of the drawing's arithmetic (PyTorch) and of the encoder's version
    (PyAV). They do not depend on other files, on the number of cores or on their load.

    Args:
        path: the file; its folder must exist.
        thing: the object.
        action: a key of ``ACTIONS``.
        domain: camera and surroundings, see ``Domain``; rate and length are drawn from it.
        seed: identifies the video among others of the same class.
    """
    random = generator_of("video", *seed, thing.name, action)
    rate = domain.rates[int(torch.randint(len(domain.rates), (), generator=random))]
    low, high = domain.seconds
    frames = round(rate * (low + (high - low) * float(torch.rand((), generator=random))))
    side = _SIDES[int(torch.randint(len(_SIDES), (), generator=random))]
    drawn = draw(video_scenes(thing, action, domain, frames, random), side, side, random)
    write_video(path, drawn, rate, crf=20, preset="veryfast", **ENCODER)
    return path


def write_world(
    folder: Path,
    *,
    seed: int = 0,
    train_videos: int = 12,
    test_videos: int = 6,
    progress: Callable[[int], object] | None = None,
) -> dict[str, WorldSplit]:
    """Write every missing split with its list and class names; return the splits.

    ``folder`` gets ``NAME/*.mp4``, ``NAME.txt`` in the released format and ``NAME.csv`` for each split, and ``train``
    for the training videos of the close set. Existing files are complete, because they are written atomically.

    Args:
        folder: output folder, created if missing.
        seed: seed of all random choices.
        train_videos: training videos per class of the close set.
        test_videos: test videos per class of every split.
        progress: called with the number of videos done since the last call.
    """
    found = splits(seed, test_videos)
    parts = {TRAIN: replace(found[CLOSE_SET], videos=train_videos), **found}
    for name, split in parts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        items = []
        for label, (thing, action) in enumerate(split.classes):
            for number in range(split.videos):
                relative = f"{name}/{label:03d}_{number:03d}.mp4"
                _write_once(folder / relative, thing, action, split.domain, (seed, name, number))
                items.append(VideoItem(relative, label))
                if progress is not None:
                    progress(1)
        texts = {f"{name}.txt": format_list(items), f"{name}.csv": format_labels(split.labels)}
        write_texts(folder, texts, force=True)
    return found


def _write_once(path: Path, thing: Object, action: str, domain: Domain, seed: tuple[int | str, ...]) -> None:
    if path.exists():
        return
    # ``staged`` does not work here: the encoder takes the container from the file's suffix.
    part = path.with_stem(f".{path.stem}.part")
    write_action(part, thing, action, domain=domain, seed=seed)
    part.replace(path)
