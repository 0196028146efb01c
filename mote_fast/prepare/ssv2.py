"""Something-Something V2 from labels.json, train.json and validation.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mote_fast.data.flip_labels import mirror_labels
from mote_fast.data.items import VideoItem
from mote_fast.data.text_tables import read_json, whole_number
from mote_fast.errors import ListError
from mote_fast.prepare.annotations import find_file
from mote_fast.prepare.lists import LABELS_FILE, DataSet, VideoList
from mote_fast.prepare.tree import VideoTree


def read_ssv2(annotations: Sequence[Path], root: Path) -> DataSet:
    """Read the training and validation videos; class indices are those of labels.json.

    The files may have the names of either release, such as ``train.json`` or ``something-something-v2-train.json``.
    Videos are named by number and may be ``.webm`` or re-encoded.

    Raises:
        ListError: a file is missing or malformed, or a template is not a class.
    """
    classes = _read_classes(find_file(annotations, "labels.json", "*-labels.json"))
    tree = VideoTree(root)
    lists = tuple(
        VideoList(
            f"{ours}list.txt", _read_split(find_file(annotations, f"{theirs}.json", f"*-{theirs}.json"), classes, tree)
        )
        for ours, theirs in (("train", "train"), ("val", "validation"))
    )
    names = tuple(classes)
    return DataSet("ssv2", lists, {LABELS_FILE: names}, mirror_labels(names))


def readable_template(template: str) -> str:
    """Remove the brackets of placeholders: "Holding [something]" to "Holding something"."""
    return " ".join(template.replace("[", "").replace("]", "").split())


def _read_classes(source: Path) -> dict[str, int]:
    content = read_json(source)
    if not isinstance(content, dict) or not content:
        raise ListError(f"{source}: must be one object that maps templates to class numbers")
    classes = {readable_template(name): whole_number(index, str(source), name) for name, index in content.items()}
    if sorted(classes.values()) != list(range(len(content))):
        raise ListError(f"{source}: class numbers must be 0 to {len(content) - 1}, each once")
    return dict(sorted(classes.items(), key=lambda pair: pair[1]))


def _read_split(source: Path, classes: dict[str, int], tree: VideoTree) -> tuple[VideoItem, ...]:
    content = read_json(source)
    if not isinstance(content, list):
        raise ListError(f"{source}: must be a list of videos")
    return tuple(_read_entry(entry, f"{source}, video {at}", classes, tree) for at, entry in enumerate(content, 1))


def _read_entry(entry: Any, where: str, classes: dict[str, int], tree: VideoTree) -> VideoItem:
    if not isinstance(entry, dict) or not {"id", "template"} <= entry.keys():
        raise ListError(f"{where}: needs an 'id' and a 'template'")
    template = readable_template(str(entry["template"]))
    if template not in classes:
        raise ListError(f"{where} (id {entry['id']}): the template {template!r} is no class of labels.json")
    return VideoItem(tree.find(str(entry["id"])) or f"{entry['id']}.webm", classes[template])
