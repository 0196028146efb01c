"""Single pictures of the world with captions, like the pairs of a web crawl: the training data of a CLIP.

A caption describes some properties: the object, its position, its size or opacity. Some captions name an action
instead of its outcome ("sliding to the left" of an object at the left), as people's captions do; a single picture does
not show the direction. No caption names an action that is unseen in the splits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mote_fast.clip.prompts import TEMPLATES
from world.draw import Scenes
from world.scenes import (
    ABROAD,
    COLOUR_VALUES,
    FAINT,
    HOME,
    LARGE,
    MAX_DISTRACTORS,
    NOWHERE,
    SMALL,
    background,
)
from world.words import ACTIONS, COLOURS, LIGHTS, PLACES, SHAPES, SIZES, TEXTURES, pick

# Coordinate beyond which an object is at a side; up to it, it is in the middle.
_AT_SIDE = 0.25
_IS_SMALL, _IS_LARGE, _IS_FAINT = 0.37, 0.53, 0.5


def still_scenes(count: int, random: torch.Generator) -> Scenes:
    """Draw the content of ``count`` pictures, all properties independently."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=random)

    def index(size: int) -> Tensor:
        return torch.randint(size, (count,), generator=random)

    abroad = torch.rand(count, generator=random) < 0.3
    colour = index(len(COLOURS))
    minor = uniform(-0.8, 0.8, MAX_DISTRACTORS, 2)
    number = torch.where(abroad, index(ABROAD.distractors + 1), index(HOME.distractors + 1))
    minor[torch.arange(MAX_DISTRACTORS) >= number[:, None]] = NOWHERE
    # A third of the objects are in the middle, a third have medium size.
    central = torch.rand(count, generator=random) < 0.33
    position = torch.where(central[:, None], uniform(-0.2, 0.2, 2), uniform(-0.75, 0.75, 2))
    faint = torch.rand(count, generator=random) < 0.2
    return Scenes(
        position=position,
        size=torch.exp(uniform(math.log(SMALL), math.log(LARGE))),
        angle=torch.where(torch.rand(count, generator=random) < 0.2, uniform(-3.2, 3.2), uniform(-0.5, 0.5)),
        strength=torch.where(faint, uniform(FAINT, 0.6), uniform(0.8, 1.0)),
        colour=(COLOUR_VALUES[colour] + 0.05 * torch.randn(count, 3, generator=random)).clamp(0, 1),
        shape=index(len(SHAPES)),
        texture=index(len(TEXTURES)),
        ground=torch.where(abroad[:, None, None], background(count, ABROAD, random), background(count, HOME, random)),
        pattern=torch.where(abroad, uniform(0, ABROAD.pattern), 0.0),
        pattern_angle=uniform(0, 2 * math.pi),
        minor=minor,
        minor_grey=uniform(0.25, 0.7, MAX_DISTRACTORS),
        noise=uniform(0, ABROAD.noise),
        colour_name=colour,
    )


def caption(scenes: Scenes, row: int, random: torch.Generator) -> str:
    """Describe picture ``row`` in words drawn at every call; half of the captions use one of CLIP's templates."""
    x, y = scenes.position[row].tolist()
    size, strength = scenes.size[row].item(), scenes.strength[row].item()
    words: list[str] = []
    action = _action(x, y, size, strength, random) if _chance(0.35, random) else None
    if action is None:
        if size < _IS_SMALL or size > _IS_LARGE:
            words += _maybe(0.5, SIZES["small" if size < _IS_SMALL else "large"], random)
        if strength < _IS_FAINT or _chance(0.15, random):
            words += _maybe(0.6, LIGHTS["faint" if strength < _IS_FAINT else "bright"], random)
    words += _maybe(0.8, list(TEXTURES.values())[int(scenes.texture[row])], random)
    words += _maybe(0.9, list(COLOURS.values())[int(scenes.colour_name[row])], random)
    words.append(pick(list(SHAPES.values())[int(scenes.shape[row])], random))
    if action is None:
        words += _maybe(0.9, PLACES[place_of(x, y)], random)
    else:
        words.append(pick(ACTIONS[action].names, random))
    text = " ".join(words)
    return pick(TEMPLATES, random).format(text) if _chance(0.5, random) else text


def place_of(x: float, y: float) -> str:
    """The key of ``PLACES`` for an object at these coordinates."""
    down = "top" if y < -_AT_SIDE else "bottom" if y > _AT_SIDE else ""
    across = "left" if x < -_AT_SIDE else "right" if x > _AT_SIDE else ""
    return f"{down} {across}".strip() or "middle"


def _action(x: float, y: float, size: float, strength: float, random: torch.Generator) -> str | None:
    """A seen action that can lead to this picture, or None."""
    place = place_of(x, y)
    fitting = {
        "left": ["slide left", "swing"],
        "right": ["slide right", "swing"],
        "top": ["rise", "bounce"],
        "bottom": ["fall", "bounce"],
        "middle": ["spin", "rest", "swing", "bounce", "lighten"],
    }.get(place, [])
    if place == "middle":
        fitting += ["grow"] * 3 * (size > _IS_LARGE) + ["shrink"] * 3 * (size < _IS_SMALL)
        fitting += ["fade"] * 4 * (strength < _IS_FAINT)
    return pick(tuple(fitting), random) if fitting else None


def _maybe(chance: float, names: tuple[str, ...], random: torch.Generator) -> list[str]:
    return [pick(names, random)] if _chance(chance, random) else []


def _chance(chance: float, random: torch.Generator) -> bool:
    return bool(torch.rand((), generator=random) < chance)
