"""Labels of mirrored videos: the class of a video after a left-right flip."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def flip_labels(names: Sequence[str]) -> dict[int, int]:
    """Map each class whose mirror image is another class to that class.

    The mirrored name has the words "left" and "right" exchanged. A class whose mirrored name is not in the list, or is
    unchanged, is left out: its videos keep their label. On Something-Something V2 this gives the pairs that the
    released code swaps: 86 and 87, 93 and 94, 166 and 167.

    Args:
        names: class names in index order.
    """
    indices = {name: index for index, name in enumerate(names)}
    mirrored = {index: indices.get(_mirror(name), index) for index, name in enumerate(names)}
    return {index: other for index, other in mirrored.items() if other != index}


def format_flip_labels(labels: Mapping[int, int]) -> str:
    """Return the text of the CSV file that ``read_flip_labels`` reads: the columns ``id`` and ``flipped``."""
    rows = "".join(f"{label},{flipped}\n" for label, flipped in sorted(labels.items()))
    return f"id,flipped\n{rows}"


def _mirror(name: str) -> str:
    return _SIDES.sub(lambda found: _in_case_of(found[0], _OTHER[found[0].lower()]), name)


def _in_case_of(model: str, word: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word
