"""The splits are as disjoint as documented."""

from __future__ import annotations

from world.splits import CLOSE_SET, COMBINATIONS, SHIFTED, UNSEEN_ACTIONS, splits
from world.words import ACTIONS

FOUND = splits()


def test_no_class_is_in_two_splits() -> None:
    """Zero-shot classes are unseen."""
    names = [label for split in FOUND.values() for label in split.labels]
    assert len(names) == len(set(names))


def test_parts_of_combinations_are_seen() -> None:
    """Every shape, colour, texture and action of an unseen combination occurs in the close set."""
    for part in ("shape", "colour", "texture"):
        seen = {getattr(thing, part) for thing, _ in FOUND[CLOSE_SET].classes}
        assert {getattr(thing, part) for thing, _ in FOUND[COMBINATIONS].classes} <= seen
    seen_actions = {action for _, action in FOUND[CLOSE_SET].classes}
    assert {action for _, action in FOUND[COMBINATIONS].classes} <= seen_actions


def test_unseen_actions_are_told_by_known_words() -> None:
    """No unseen action is in the close set, and each is named with words of seen ones."""
    unseen = {action for _, action in FOUND[UNSEEN_ACTIONS].classes}
    assert not unseen & {action for _, action in FOUND[CLOSE_SET].classes}
    known = {word for action in ACTIONS.values() if action.seen for name in action.names for word in name.split()}
    assert all(set(ACTIONS[action].names[0].split()) <= known for action in unseen)


def test_reverse_actions_share_their_objects() -> None:
    """The object alone does not distinguish an action from its reverse."""
    for split in FOUND.values():
        for thing, action in split.classes:
            reverse = ACTIONS[action].reverse
            assert reverse is None or (thing, reverse) in split.classes
    assert all(ACTIONS[each.reverse].reverse == name for name, each in ACTIONS.items() if each.reverse)


def test_another_domain() -> None:
    """The shifted split has other surroundings and frame rates."""
    home, abroad = FOUND[CLOSE_SET].domain, FOUND[SHIFTED].domain
    assert not set(home.rates) & set(abroad.rates)
    assert abroad.pattern > home.pattern
