"""Labels of mirrored videos: which class a video shows after a flip from left to right."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mote_fast.errors import ListError

_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def flip_labels(names: Sequence[str]) -> dict[int, int]:
    """Map each class whose mirror image is another class to that class.

    The mirror image of a name has the words "left" and "right" exchanged. A class whose mirrored name is not in the
    list, or is its own, is left out: its videos keep their label. On Something-Something V2 this gives the pairs that
    the released code swaps: 86 and 87, 93 and 94, 166 and 167.

    Args:
        names: class names in the order of their indices.
    """
    indices = {name: index for index, name in enumerate(names)}
    mirrored = {index: indices.get(_mirror(name), index) for index, name in enumerate(names)}
    return {index: other for index, other in mirrored.items() if other != index}


def format_flip_labels(labels: Mapping[int, int]) -> str:
    """Return the text of the CSV file that ``read_flip_labels`` reads: the columns ``id`` and ``flipped``."""
    rows = "".join(f"{label},{flipped}\n" for label, flipped in sorted(labels.items()))
    return f"id,flipped\n{rows}"


def read_flip_labels(path: str | os.PathLike[str]) -> dict[int, int]:
    """Read the labels of mirrored videos, for ``ClipRecipe.flip_labels``.

    A CSV has the columns ``id`` and ``flipped``; a ``.json`` file is one object such as ``{"86": 87, "87": 86}``. A
    file without entries is allowed: no class has a mirror image.

    Raises:
        ListError: the file is missing or malformed, or flipping twice does not give the first label back.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ListError(f"{source}: cannot be read ({error})") from error
    labels = _parse_json(text, source) if source.suffix.lower() == ".json" else _parse_csv(text, source)
    for label, flipped in labels.items():
        if labels.get(flipped) != label:
            raise ListError(f"{source}: {label} flips to {flipped}, so {flipped} must flip to {label}")
    return labels


def _mirror(name: str) -> str:
    return _SIDES.sub(lambda found: _in_case_of(found[0], _OTHER[found[0].lower()]), name)


def _in_case_of(model: str, word: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word


def _parse_csv(text: str, source: Path) -> dict[int, int]:
    reader = csv.DictReader(io.StringIO(text))
    if not {"id", "flipped"} <= set(reader.fieldnames or ()):
        raise ListError(f"{source}: needs the columns 'id' and 'flipped', found {reader.fieldnames}")
    labels: dict[int, int] = {}
    for row in reader:
        where = f"{source}:{reader.line_num}"
        label = _label(row["id"], where)
        if label in labels:
            raise ListError(f"{where}: {label} is listed twice")
        labels[label] = _label(row["flipped"], where)
    return labels


def _parse_json(text: str, source: Path) -> dict[int, int]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ListError(f"{source}:{error.lineno}: not JSON ({error.msg})") from error
    if not isinstance(content, dict):
        raise ListError(f"{source}: must be one object that maps labels to labels")
    return {_label(label, str(source)): _label(flipped, str(source)) for label, flipped in content.items()}


def _label(value: object, where: str) -> int:
    try:
        label = int(value) if isinstance(value, str | int) else -1
    except ValueError:
        label = -1
    if label < 0:
        raise ListError(f"{where}: a label must be an integer from 0, found {value!r}")
    return label
