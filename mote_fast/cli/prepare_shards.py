"""``mote-fast prepare shards``: writes the videos of a list into tar files for sequential reading."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from pathlib import Path

from mote_fast.cli import outputs
from mote_fast.data.items import check_items, read_labels, read_list
from mote_fast.data.shards.shard_index import INDEX_FILE
from mote_fast.errors import ConfigError
from mote_fast.prepare.write_shards import write_shards
from mote_fast.runtime.files import make_folder

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def run(arguments: argparse.Namespace) -> int:
    """Write the shards; a bad video is left out and reported. Returns 0, or 3 if any was left out."""
    items = read_list(arguments.list)
    labels = read_labels(arguments.labels_file) if arguments.labels_file else []
    if labels:
        check_items(items, len(labels), arguments.list)
    make_folder(Path(arguments.folder), "OUT", (INDEX_FILE,))
    index = write_shards(
        items,
        arguments.folder,
        root=arguments.root,
        max_bytes=bytes_of(arguments.shard_size),
        max_samples=arguments.samples,
        seed=arguments.seed,
        labels=labels,
        workers=arguments.workers,
        time_limit=arguments.time_limit,
    )
    left_out = [asdict(failure) for failure in index.left_out]
    document = {"shards": len(index.shards), "samples": index.samples, "left_out": left_out}
    outputs.show(arguments, document, [f"{arguments.folder}: {index.samples} videos in {len(index.shards)} shards"])
    errors = [f"{failure.path}: {failure.reason}" for failure in index.left_out]
    return outputs.report_failed([*errors, f"{len(errors)} videos left out; see {INDEX_FILE}"] if errors else [])


def bytes_of(text: str) -> int:
    """Read a size such as "1GB", "500 MB", "2GiB" or "1000000".

    Raises:
        ConfigError: the text has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?)?B?", text.strip().upper())
    if match is None:
        raise ConfigError(f"--shard-size must be a size such as 500MB, 1GB or 2GiB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2] or ""])
