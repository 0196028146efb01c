"""The world as h264 files with lists, which every other part of the library reads as it reads anybody's videos."""

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

# The list of training videos of the close set; every split has a list of test videos besides, in its own name.
TRAIN = "train"
# Heights and widths to draw from, pixels.
_SIDES = (64, 72, 80)
# x264 with its defaults is no function of its input: its macroblock tree gives several files for the same frames, and
# its choices depend on the number of cores and on their instruction set.
ENCODER = {"threads": 1, "x264-params": "mbtree=0:cpu-independent=1"}


def write_action(
    path: Path, thing: Object, action: str, *, domain: Domain = HOME, seed: tuple[int | str, ...] = (0,)
) -> Path:
    """Write one video of ``thing`` performing ``action``.

    The file's bytes are a function of the arguments, of the drawing's arithmetic (PyTorch) and of the encoder's version
    (PyAV); not of what else was written, of the number of cores or of what they do besides.

    Args:
        path: the file; its folder must exist.
        thing: what is seen.
        action: a key of ``ACTIONS``.
        domain: camera and surroundings, see ``Domain``; rate and length are drawn from it.
        seed: names the video among others of the same class.
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
    """Write every split that is not there yet, with its list and class names; return the splits.

    ``folder`` gets ``NAME/*.mp4``, ``NAME.txt`` in the released format and ``NAME.csv`` for each split, and ``train``
    for the training videos of the close set. Files that exist are complete: they appear whole or not at all.

    Args:
        folder: made where missing.
        seed: of everything.
        train_videos: of each class of the close set.
        test_videos: of each class of every split.
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
    # Not by ``staged``: the encoder takes the container from the name's ending.
    part = path.with_stem(f".{path.stem}.part")
    write_action(part, thing, action, domain=domain, seed=seed)
    part.replace(path)
