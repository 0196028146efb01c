"""Reads files with the labels of mirrored videos."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

from mote_fast.errors import ListError


def read_flip_labels(path: str | os.PathLike[str]) -> dict[int, int]:
    """Read the labels of mirrored videos, for ``ClipRecipe.flip_labels``.

    A CSV has the columns ``id`` and ``flipped``; a ``.json`` file is one object such as ``{"86": 87, "87": 86}``. A
    file without entries is allowed: no class has a mirror image.

    Raises:
        ListError: the file is missing or malformed, or flipping a label twice does not return it.
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
