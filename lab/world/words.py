"""The words of the world: objects, actions and their names."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mote_fast.clip.prompts import TEMPLATES

# Every tuple of names is (word of the class name, synonyms); the keys are in the order of the drawing's indices.
SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle", "wedge"),
    "star": ("star",),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
}
COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("red", "scarlet"),
    "green": ("green", "emerald"),
    "blue": ("blue", "navy"),
    "yellow": ("yellow", "golden"),
    "purple": ("purple", "violet"),
    "white": ("white", "pale"),
}
TEXTURES: dict[str, tuple[str, ...]] = {
    "plain": ("plain", "smooth"),
    "striped": ("striped", "lined"),
    "dotted": ("dotted", "spotted"),
}

# Position and look of an object in a still picture; actions are named with the same words.
PLACES: dict[str, tuple[str, ...]] = {
    "left": ("at the left", "on the left"),
    "right": ("at the right", "on the right"),
    "top": ("at the top", "high up"),
    "bottom": ("at the bottom", "low down"),
    "top left": ("at the top left",),
    "top right": ("at the top right",),
    "bottom left": ("at the bottom left",),
    "bottom right": ("at the bottom right",),
    "middle": ("in the middle", "in the center"),
}
SIZES: dict[str, tuple[str, ...]] = {"small": ("small", "tiny"), "large": ("large", "big")}
LIGHTS: dict[str, tuple[str, ...]] = {"faint": ("faint", "dim"), "bright": ("bright", "clear")}


@dataclass(frozen=True, order=True)
class Object:
    """The object of a video: keys of ``SHAPES``, ``COLOURS`` and ``TEXTURES``."""

    shape: str
    colour: str
    texture: str

    @property
    def name(self) -> str:
        """Its class name's words, such as "striped red circle"."""
        return f"{TEXTURES[self.texture][0]} {COLOURS[self.colour][0]} {SHAPES[self.shape][0]}"


@dataclass(frozen=True)
class Action:
    """An action of an object.

    Attributes:
        names: the class name's words, and synonyms.
        moves: changes from the first frame to the last, by the keys of ``scenes.MOVES``.
        seen: whether fine-tuning has classes of it.
        reverse: the action that its video shows when played backwards, if it is another one.
    """

    names: tuple[str, ...]
    moves: tuple[str, ...]
    seen: bool = True
    reverse: str | None = None


# Recognising an action takes several frames: single frames of an action and of its reverse look alike.
ACTIONS: dict[str, Action] = {
    "slide left": Action(("sliding to the left", "gliding to the left"), ("left",), reverse="slide right"),
    "slide right": Action(("sliding to the right", "gliding to the right"), ("right",), reverse="slide left"),
    "rise": Action(("sliding to the top", "gliding to the top"), ("up",), reverse="fall"),
    "fall": Action(("sliding to the bottom", "gliding to the bottom"), ("down",), reverse="rise"),
    "grow": Action(("growing large", "growing big"), ("grow",), reverse="shrink"),
    "shrink": Action(("shrinking small", "shrinking tiny"), ("shrink",), reverse="grow"),
    "fade": Action(("turning faint", "turning dim"), ("fade",), reverse="lighten"),
    "lighten": Action(("turning bright", "turning clear"), ("lighten",), reverse="fade"),
    "swing": Action(("swinging from left to right and back",), ("swing",)),
    "bounce": Action(("bouncing from top to bottom and back",), ("bounce",)),
    "spin": Action(("spinning around in the middle",), ("spin",)),
    "rest": Action(("resting in the middle",), ()),
    # Named with words that already occur in the captions and the actions above.
    "slide top left": Action(("sliding to the top left",), ("left", "up"), False, "slide bottom right"),
    "slide bottom right": Action(("sliding to the bottom right",), ("right", "down"), False, "slide top left"),
    "slide top right": Action(("sliding to the top right",), ("right", "up"), False, "slide bottom left"),
    "slide bottom left": Action(("sliding to the bottom left",), ("left", "down"), False, "slide top right"),
    "slide left growing": Action(
        ("sliding to the left growing large",), ("left", "grow"), False, "slide right shrinking"
    ),
    "slide right shrinking": Action(
        ("sliding to the right shrinking small",), ("right", "shrink"), False, "slide left growing"
    ),
    "rise fading": Action(("sliding to the top turning faint",), ("up", "fade"), False, "fall lightening"),
    "fall lightening": Action(("sliding to the bottom turning bright",), ("down", "lighten"), False, "rise fading"),
}


def class_name(thing: Object, action: str) -> str:
    """The class name of an object that performs an action (a key of ``ACTIONS``)."""
    return f"{thing.name} {ACTIONS[action].names[0]}"


def pick(choices: tuple[str, ...], random: torch.Generator) -> str:
    """One of the choices, with equal probabilities."""
    return choices[int(torch.randint(len(choices), (), generator=random))]


def vocabulary() -> list[str]:
    """Every word of the world and of the templates, each once, in the order of first use."""
    tables = (SHAPES, COLOURS, TEXTURES, PLACES, SIZES, LIGHTS)
    phrases = [name for table in tables for names in table.values() for name in names]
    phrases += [name for action in ACTIONS.values() for name in action.names]
    phrases += [template.replace("{}", "").replace(".", "") for template in TEMPLATES]
    return list(dict.fromkeys(word for phrase in phrases for word in phrase.split()))
