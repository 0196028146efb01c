"""Reads files with the labels of mirrored videos."""

from __future__ import annotations

import os
from pathlib import Path

from mote_fast.data.text_tables import read_json, read_table, whole_number
from mote_fast.errors import ListError


def read_flip_labels(path: str | os.PathLike[str]) -> dict[int, int]:
    """Read the labels of mirrored videos, for ``ClipRecipe.flip_labels``.

    A CSV has the columns ``id`` and ``flipped``; a ``.json`` file is one object such as ``{"86": 87, "87": 86}``. A
    file without entries is allowed: no class has a mirror image.

    Raises:
        ListError: the file is missing or malformed, a label is given twice, or flipping a label twice does not return
            it.
    """
    source = Path(path)
    labels: dict[int, int] = {}
    for where, label, flipped in _json_pairs(source) if source.suffix.lower() == ".json" else _csv_pairs(source):
        label = whole_number(label, where, "a label", least=0)
        if label in labels:
            raise ListError(f"{where}: {label} is listed twice")
        labels[label] = whole_number(flipped, where, "a label", least=0)
    for label, flipped in labels.items():
        if labels.get(flipped) != label:
            raise ListError(f"{source}: {label} flips to {flipped}, so {flipped} must flip to {label}")
    return labels


def _csv_pairs(source: Path) -> list[tuple[str, object, object]]:
    return [(row.where, row.named["id"], row.named["flipped"]) for row in read_table(source, ("id", "flipped")).rows]


def _json_pairs(source: Path) -> list[tuple[str, object, object]]:
    content = read_json(source)
    if not isinstance(content, dict):
        raise ListError(f"{source}: must be one object that maps labels to labels")
    return [(str(source), label, flipped) for label, flipped in content.items()]
