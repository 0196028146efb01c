"""The class lists of the world and their numbers of videos; functions of the seed alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mote_fast.runtime.seeding import generator_of
from world.scenes import ABROAD, HOME, Domain
from world.words import ACTIONS, COLOURS, SHAPES, TEXTURES, Object, class_name

# Objects that perform each action, or each pair of an action and its reverse.
OBJECTS_PER_ACTION = 4

CLOSE_SET, COMBINATIONS, UNSEEN_ACTIONS, SHIFTED = "close-set", "combinations", "actions", "shifted"
ZERO_SHOT = (COMBINATIONS, UNSEEN_ACTIONS, SHIFTED)


@dataclass(frozen=True)
class WorldSplit:
    """A label set and its videos' domain.

    Attributes:
        name: one of ``CLOSE_SET``, ``COMBINATIONS``, ``UNSEEN_ACTIONS``, ``SHIFTED``.
        classes: (object, action) of each class.
        domain: of the test videos.
        videos: test videos of each class.
    """

    name: str
    classes: tuple[tuple[Object, str], ...]
    domain: Domain
    videos: int

    @property
    def labels(self) -> list[str]:
        """Its class names."""
        return [class_name(*each) for each in self.classes]


def splits(seed: int = 0, videos: int = 6) -> dict[str, WorldSplit]:
    """Lay out the splits; they are disjoint, and an action and its reverse have the same objects.

    - close-set: seen actions (corresponds to K400);
    - combinations: seen actions by other objects, whose parts all occur in the close set;
    - actions: unseen actions, named with words of seen actions;
    - shifted: seen actions by yet other objects, in other surroundings and at other frame rates.
    """
    things = _objects(seed)
    seen = [name for name, action in ACTIONS.items() if action.seen]
    unseen = [name for name, action in ACTIONS.items() if not action.seen]
    return {
        name: WorldSplit(name, tuple(_classes(actions, things)), domain, videos)
        for name, actions, domain in (
            (CLOSE_SET, seen, HOME),
            (COMBINATIONS, seen, HOME),
            (UNSEEN_ACTIONS, unseen, HOME),
            (SHIFTED, seen, ABROAD),
        )
    }


def _objects(seed: int) -> Iterator[Object]:
    """Every object, repeated forever, in an order in which neighbours share few parts."""
    everything = [Object(*parts) for parts in itertools.product(SHAPES, COLOURS, TEXTURES)]
    order = torch.randperm(len(everything), generator=generator_of(seed, "objects")).tolist()
    return itertools.cycle(everything[index] for index in order)


def _classes(actions: list[str], things: Iterator[Object]) -> Iterator[tuple[Object, str]]:
    """Give each action, together with its reverse, the next objects."""
    for action in actions:
        reverse = ACTIONS[action].reverse
        if reverse is not None and actions.index(reverse) < actions.index(action):
            continue
        for thing in itertools.islice(things, OBJECTS_PER_ACTION):
            yield thing, action
            if reverse is not None:
                yield thing, reverse
