"""The content of a video's frames: an object, its action over time, and the surroundings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from world.draw import Scenes
from world.words import ACTIONS, COLOURS, SHAPES, TEXTURES, Object

# Move -> the property that it changes, and the signs of its first and last value. "x" and "y" are frame coordinates.
MOVES: Mapping[str, tuple[str, float, float]] = {
    "left": ("x", 1, -1),
    "right": ("x", -1, 1),
    "up": ("y", 1, -1),
    "down": ("y", -1, 1),
    "grow": ("size", -1, 1),
    "shrink": ("size", 1, -1),
    "fade": ("strength", 1, -1),
    "lighten": ("strength", -1, 1),
}
# Actions that return to their start.
_WAVES = {"swing": "x", "bounce": "y"}

COLOUR_VALUES = torch.tensor(
    [[0.9, 0.15, 0.12], [0.15, 0.75, 0.2], [0.15, 0.3, 0.95], [0.95, 0.85, 0.1], [0.65, 0.2, 0.8], [0.95, 0.95, 0.95]]
)
_SIZE, _STRENGTH = 0.44, 1.0
SMALL, LARGE = 0.3, 0.65
FAINT = 0.25
_REACH = 0.55
_TINT = 0.02
NOWHERE = 9.0


@dataclass(frozen=True)
class Domain:
    """The properties of a camera and its surroundings.

    Attributes:
        brightness: range of the background's greys.
        pattern: largest strength of bars over the background.
        distractors: largest number of distractors.
        shake: deviation of the camera's wander.
        noise: largest deviation of the camera's noise.
        rates: frame rates to draw from, frames per second.
        seconds: range of lengths.
        steady: whether the action fills the video; otherwise nothing changes before and after it.
    """

    brightness: tuple[float, float]
    pattern: float
    distractors: int
    shake: float
    noise: float
    rates: tuple[int, ...]
    seconds: tuple[float, float]
    steady: bool


HOME = Domain((0.02, 0.2), 0.0, 2, 0.04, 0.03, (15, 20, 25), (1.0, 1.8), True)
ABROAD = Domain((0.15, 0.35), 0.08, 4, 0.07, 0.06, (8, 10, 12), (1.4, 3.0), False)
MAX_DISTRACTORS = max(HOME.distractors, ABROAD.distractors)


def video_scenes(thing: Object, action: str, domain: Domain, frames: int, random: torch.Generator) -> Scenes:
    """Lay out a video of ``frames`` frames; a function of the arguments and of the generator's state."""
    time = torch.linspace(0, 1, frames)
    if not domain.steady:
        begin, end = 0.2 * _uniform(random), 1 - 0.2 * _uniform(random)
        time = ((time - begin) / (end - begin)).clamp(0, 1)
    state = _rest(frames, random)
    for move in ACTIONS[action].moves:
        _perform(move, state, time, random)
    shake = domain.shake * _wander(frames, 2, random)
    position = torch.stack((state["x"], state["y"]), dim=-1) + shake
    acting = {name: state[name] for name in ("size", "angle", "strength")}
    return Scenes(position=position, **acting, **_around(thing, domain, frames, random, shake))


def _rest(frames: int, random: torch.Generator) -> dict[str, Tensor]:
    """An object at rest, near the middle."""
    x, y = (0.12 * torch.randn(2, generator=random)).tolist()
    angle = 0.25 * float(torch.randn((), generator=random))
    size = _SIZE * (0.85 + 0.3 * _uniform(random))
    values = {"x": x, "y": y, "angle": angle, "size": size, "strength": _STRENGTH}
    return {name: torch.full((frames,), value) for name, value in values.items()}


def _perform(move: str, state: dict[str, Tensor], time: Tensor, random: torch.Generator) -> None:
    """Change ``state`` over ``time`` in [0, 1]."""
    pace = 0.8 + 0.5 * _uniform(random)
    if move == "spin":
        turn = 1 if _uniform(random) < 0.5 else -1
        state["angle"] = state["angle"] + turn * 2 * math.pi * pace * time
        return
    if move in _WAVES:
        start = 1 if _uniform(random) < 0.5 else -1
        state[_WAVES[move]] = state[_WAVES[move]] + start * _REACH * torch.cos(2 * math.pi * round(pace + 0.4) * time)
        return
    what, begin, end = MOVES[move]
    reach = 0.8 + 0.4 * _uniform(random)
    along = begin + (end - begin) * time**pace
    if what == "size":
        middle = math.sqrt(SMALL * LARGE)
        state["size"] = middle * (LARGE / middle) ** (reach * along)
    elif what == "strength":
        state["strength"] = (FAINT + (1 - FAINT) * (along + 1) / 2).clamp(0, 1)
    else:
        state[what] = state[what] + reach * _REACH * along


def _around(thing: Object, domain: Domain, frames: int, random: torch.Generator, shake: Tensor) -> dict[str, Tensor]:
    """The properties without an action: the object's looks, the background, distractors that move with the camera."""
    ground = background(1, domain, random)
    count = int(torch.randint(domain.distractors + 1, (), generator=random))
    minor = 1.6 * torch.rand(1, domain.distractors, 2, generator=random) - 0.8
    minor[:, count:] = NOWHERE
    drift = (
        0.15 * torch.randn(1, domain.distractors, 2, generator=random) * torch.linspace(-1, 1, frames)[:, None, None]
    )
    colour_name = list(COLOURS).index(thing.colour)
    colour = COLOUR_VALUES[colour_name] + 0.05 * torch.randn(3, generator=random)
    scalars = {
        "pattern": domain.pattern * _uniform(random),
        "pattern_angle": 2 * math.pi * _uniform(random),
        "noise": domain.noise * _uniform(random),
    }
    shapes, textures = list(SHAPES).index(thing.shape), list(TEXTURES).index(thing.texture)
    grey = 0.25 + 0.45 * torch.rand(1, domain.distractors, generator=random)
    padding = MAX_DISTRACTORS - domain.distractors
    return {
        "colour": colour.clamp(0, 1).expand(frames, 3),
        "colour_name": torch.full((frames,), colour_name),
        "shape": torch.full((frames,), shapes),
        "texture": torch.full((frames,), textures),
        "ground": ground.expand(frames, 2, 3),
        "minor": torch.nn.functional.pad(minor + drift + shake[:, None], (0, 0, 0, padding), value=NOWHERE),
        "minor_grey": torch.nn.functional.pad(grey, (0, padding)).expand(frames, -1),
        **{name: torch.full((frames,), value) for name, value in scalars.items()},
    }


def background(count: int, domain: Domain, random: torch.Generator) -> Tensor:
    """Greys at the two ends of the background's gradient, each slightly coloured: [count, 2, 3]."""
    low, high = domain.brightness
    grey = low + (high - low) * torch.rand(count, 2, 1, generator=random)
    return (grey + _TINT * torch.randn(count, 2, 3, generator=random)).clamp(0, 1)


def _wander(frames: int, columns: int, random: torch.Generator) -> Tensor:
    """A slow random motion around zero, of deviation about 1: [frames, columns]."""
    phase = 2 * math.pi * torch.rand(2, columns, generator=random)
    time = torch.linspace(0, 1, frames)[:, None]
    return torch.sin(4 * time + phase[0]) + 0.5 * torch.sin(11 * time + phase[1])


def _uniform(random: torch.Generator) -> float:
    return float(torch.rand((), generator=random))
