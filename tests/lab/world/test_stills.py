"""Captions describe the picture and name no unseen action."""

from __future__ import annotations

from world.draw import draw
from world.stills import caption, place_of, still_scenes
from world.words import ACTIONS, SHAPES, vocabulary

from mote_fast.runtime.seeding import generator_of

COUNT = 200


def test_captions() -> None:
    """Each names the picture's shape in known words; the same generator gives the same words."""
    scenes = still_scenes(COUNT, generator_of("test"))
    random = generator_of("words")
    known = set(vocabulary())
    unseen = [each.names[0] for each in ACTIONS.values() if not each.seen]
    names = list(SHAPES.values())
    told = [caption(scenes, row, random) for row in range(COUNT)]
    for row, text in enumerate(told):
        words = text.rstrip(".").split()
        assert set(words) <= known
        assert set(words) & set(names[int(scenes.shape[row])])
        assert not any(name in text for name in unseen)
    again = generator_of("words")
    assert told == [caption(scenes, row, again) for row in range(COUNT)]
    assert draw(scenes, 32, 32, random).shape == (COUNT, 32, 32, 3)


def test_places() -> None:
    """Left is left, and the top is where y is small."""
    assert place_of(-0.6, 0.0) == "left"
    assert place_of(0.6, 0.6) == "bottom right"
    assert place_of(0.0, -0.6) == "top"
    assert place_of(0.1, 0.1) == "middle"
