"""Labels of mirrored videos: what class a video has after a left-right flip, from class names or from a file.

A label that is not in the mapping keeps its class; None means that its videos must not be mirrored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mote_fast.data.text_tables import BLANKS, read_json, read_table, whole_number
from mote_fast.errors import ListError

FlipLabels = Mapping[int, int | None]

_OTHER = {"left": "right", "leftward": "rightward", "leftwards": "rightwards", "clockwise": "counterclockwise"}
_OTHER |= {other: word for word, other in _OTHER.items()}
_SIDES = re.compile(rf"\b({'|'.join(_OTHER)})\b")
# Spellings of one word.
_COUNTER = re.compile(r"\b(counter|anti)[- ]?clockwise\b")


def mirror_labels(names: Sequence[str]) -> dict[int, int]:
    """Map each class whose mirror image is another class to that class.

    The mirrored name has "left" and "right", or "clockwise" and "counterclockwise", exchanged; capitals are ignored. On
    Something-Something V2 this gives the pairs that the released code swaps: 86 and 87, 93 and 94, 166 and 167.

    Args:
        names: class names in index order.
    """
    plain = [_plain(name) for name in names]
    indices = {name: index for index, name in reversed([*enumerate(plain)])}
    mirrored = {index: indices.get(_mirror(name), index) for index, name in enumerate(plain)}
    # Of two spellings of one name, only the first is a mirror image.
    return {index: other for index, other in mirrored.items() if other != index and mirrored[other] == index}


def one_sided(names: Sequence[str]) -> list[int]:
    """Return the classes that name a side, while their mirror image is no class: mirrored, they would be mislabelled.

    Args:
        names: class names in index order.
    """
    paired = mirror_labels(names)
    return [index for index, name in enumerate(map(_plain, names)) if _mirror(name) != name and index not in paired]


def format_flip_labels(labels: FlipLabels) -> str:
    """Return the text of the CSV file that ``read_flip_labels`` reads."""
    rows = "".join(f"{label},{'' if flipped is None else flipped}\n" for label, flipped in sorted(labels.items()))
    return f"id,flipped\n{rows}"


def read_flip_labels(path: str | os.PathLike[str]) -> dict[int, int | None]:
    """Read the labels of mirrored videos, for ``ClipRecipe.flip_labels``.

    A CSV has the columns ``id`` and ``flipped``; a ``.json`` file is one object such as ``{"86": 87, "87": 86}``. An
    empty cell or null means that videos of the class are not mirrored. A file without entries is allowed.

    Raises:
        ListError: the file is missing or malformed, a label is given twice, or flipping a label twice does not return
            it.
    """
    source = Path(path)
    labels: dict[int, int | None] = {}
    for where, label, flipped in _json_pairs(source) if source.suffix.lower() == ".json" else _csv_pairs(source):
        label = whole_number(label, where, "a label", least=0)
        if label in labels:
            raise ListError(f"{where}: {label} is listed twice")
        labels[label] = None if flipped is None else whole_number(flipped, where, "a label", least=0)
    for label, flipped in labels.items():
        if flipped is not None and labels.get(flipped) != label:
            raise ListError(f"{source}: {label} flips to {flipped}, so {flipped} must flip to {label}")
    return labels


def _csv_pairs(source: Path) -> list[tuple[str, object, object]]:
    rows = read_table(source, ("id", "flipped")).rows
    return [(row.where, row.named["id"], row.named["flipped"].strip(BLANKS) or None) for row in rows]


def _json_pairs(source: Path) -> list[tuple[str, object, object]]:
    content = read_json(source)
    if not isinstance(content, dict):
        raise ListError(f"{source}: must be one object that maps labels to labels")
    return [(str(source), label, flipped) for label, flipped in content.items()]


def _plain(name: str) -> str:
    return _COUNTER.sub("counterclockwise", name.lower())


def _mirror(plain: str) -> str:
    return _SIDES.sub(lambda found: _OTHER[found[0]], plain)
