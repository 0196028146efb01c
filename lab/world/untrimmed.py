"""Untrimmed videos: several actions in front of one background, which is still or distracting in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch

from mote_fast.data.decoding.video_writer import write_video
from mote_fast.runtime.seeding import generator_of
from world.draw import Scenes, draw
from world.scenes import HOME, Domain, video_scenes
from world.words import Object, class_name
from world.write import ENCODER

# Frames per second, and pixels.
RATE, SIDE = 20, 72
# Ranges of the seconds of an action, and between two.
ACTION_SECONDS, GAP_SECONDS = (1.2, 2.4), (1.0, 5.0)
# How many times a distractor crosses the middle in a gap, at most.
_CROSSINGS = 3


class Truth(NamedTuple):
    """An action of a video: when it begins and ends, in seconds, and its class name."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class _Part:
    """Frames of a video: an action, or none."""

    scenes: Scenes
    label: str | None


def write_untrimmed(
    path: Path,
    classes: Sequence[tuple[Object, str]],
    actions: int,
    seed: tuple[int | str, ...],
    *,
    gaps: int = 7,
    domain: Domain = HOME,
) -> list[Truth]:
    """Write a video of some actions, drawn from ``classes``, with gaps before, between and after; return when they are.

    The object is in the picture during its action alone. The background is that of one camera. In every other gap
    distractors move; in the others they rest.

    Args:
        path: the file; its folder must exist.
        classes: (object, action) of each class.
        actions: how many; 0 writes background alone.
        seed: identifies the video.
        gaps: how many make a video of background alone.
        domain: camera and surroundings.
    """
    random = generator_of("untrimmed", *seed)

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    parts: list[_Part] = []
    for number in range(actions + 1 if actions else gaps):
        thing, action = classes[int(torch.randint(len(classes), (), generator=random))]
        gap = video_scenes(thing, "rest", domain, round(RATE * between(*GAP_SECONDS)), random)
        parts.append(_Part(_gap(gap, number % 2 == 1, random), None))
        if number < actions:
            scenes = video_scenes(thing, action, domain, round(RATE * between(*ACTION_SECONDS)), random)
            parts.append(_Part(scenes, class_name(thing, action)))
    ground = parts[0].scenes
    whole = {field.name: torch.cat([getattr(part.scenes, field.name) for part in parts]) for field in fields(Scenes)}
    scenes = Scenes(**whole)
    for name in ("ground", "pattern", "pattern_angle", "noise"):
        first = getattr(ground, name)[:1]
        scenes = replace(scenes, **{name: first.expand(len(scenes), *first.shape[1:])})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, draw(scenes, SIDE, SIDE, random), RATE, crf=20, preset="veryfast", **ENCODER)
    truths: list[Truth] = []
    at = 0
    for part in parts:
        end = at + len(part.scenes)
        if part.label is not None:
            truths.append(Truth(at / RATE, end / RATE, part.label))
        at = end
    return truths


def _gap(scenes: Scenes, distracting: bool, random: torch.Generator) -> Scenes:
    """The frames without their object; with distractors that move, or as they are."""
    scenes = replace(scenes, strength=torch.zeros(len(scenes)))
    if not distracting:
        return scenes
    time = torch.linspace(0, 1, len(scenes))[:, None, None]
    start, phase = torch.rand(2, 1, *scenes.minor.shape[1:], generator=random)
    crossings = 1 + _CROSSINGS * torch.rand(1, scenes.minor.shape[1], 1, generator=random)
    moved = torch.sin(torch.pi * crossings * time + 6.3 * phase) * (0.4 + 0.4 * start)
    minor = torch.where(scenes.minor.abs() < 2, moved, scenes.minor)
    if not bool((minor.abs() < 2).any()):
        minor = minor.clone()
        minor[:, :1] = moved[:, :1]
    return replace(scenes, minor=minor)
