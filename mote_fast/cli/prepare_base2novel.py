"""``mote-fast prepare base2novel``: lists of base and novel classes, split here or as published by ViFi-CLIP."""

from __future__ import annotations

import argparse
from pathlib import Path

from mote_fast.cli import outputs
from mote_fast.errors import ConfigError
from mote_fast.evaluation.splits import read_split
from mote_fast.prepare.base_to_novel import BaseToNovel, read_published, split_base_novel
from mote_fast.prepare.lists import LOCK_FILE
from mote_fast.runtime.files import make_folder, write_texts
from mote_fast.runtime.lock import FileLock

# The options of the two ways.
_OWN = ("list", "val_list", "labels_file")
_PUBLISHED = ("published", "base_labels", "novel_labels", "root")


def run(arguments: argparse.Namespace) -> int:
    """Write the lists. Returns 0; missing videos are counted, and stay in the lists."""
    found, missing = _lists_of(arguments)
    contents, output = found.files(), Path(arguments.output)
    make_folder(output, names=contents)
    with FileLock(output / LOCK_FILE, f"--output {output}"):
        write_texts(output, contents, arguments.force)
    counts = {name: len(items) for name, items in found.lists().items()}
    lines = [f"{output / name}: {count} videos" for name, count in counts.items()]
    lines += [f"{len(found.base_names)} base classes, {len(found.novel_names)} novel classes"]
    if missing:
        lines += [f"{len(missing)} videos were not found below {arguments.root}, such as {missing[0]}"]
    document = {
        "lists": counts,
        "base_classes": len(found.base_names),
        "novel_classes": len(found.novel_names),
        "missing": missing,
    }
    outputs.show(arguments, document, lines)
    return 0


def _lists_of(arguments: argparse.Namespace) -> tuple[BaseToNovel, list[str]]:
    own, published = ([getattr(arguments, name) for name in names] for names in (_OWN, _PUBLISHED))
    if all(own) and not any(published):
        train, val = (read_split(source, arguments.labels_file) for source in (arguments.list, arguments.val_list))
        return split_base_novel(train, val, arguments.shots, arguments.seeds), []
    if all(published) and not any(own):
        folder, base, novel, root = published
        return read_published(folder, base, novel, root, arguments.seeds)
    ways = (" ".join(f"--{name.replace('_', '-')}" for name in names) for names in (_OWN, _PUBLISHED))
    raise ConfigError(f"give either {' or '.join(ways)}, all of one way and none of the other")
