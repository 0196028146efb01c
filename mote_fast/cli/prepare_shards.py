"""``mote-fast prepare shards``: writes the videos of a list into tar files for sequential reading."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mote_fast.cli import options, outputs
from mote_fast.data.items import check_items, read_labels, read_list
from mote_fast.data.shards.shard_index import INDEX_FILE
from mote_fast.errors import ConfigError
from mote_fast.prepare.write_shards import write_shards
from mote_fast.runtime.files import make_folder

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def add_command(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("shards", help="write videos into WebDataset tar shards", description=__doc__)
    parser.add_argument("list", metavar="LIST", help="list of videos: 'PATH LABEL' per line, or a CSV")
    parser.add_argument("folder", metavar="OUT", help="folder for the shards and their index")
    parser.add_argument("--root", default="", metavar="FOLDER", help="base folder of the list's paths")
    options.add_value(parser, "--shard-size", "1GB", "maximum total size of the videos in a shard", "SIZE")
    parser.add_argument("--samples", type=int, metavar="N", help="maximum number of videos in a shard")
    options.add_value(parser, "--seed", 0, "seed of the order", "N")
    options.add_labels_file(parser)
    options.add_workers(parser, "check", 60.0)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the shards; a bad video is left out and reported. Returns 0, or 2 if any was left out."""
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
    return outputs.report([*errors, f"{len(errors)} videos left out; see {INDEX_FILE}"] if errors else [])


def bytes_of(text: str) -> int:
    """Read a size such as "1GB", "500 MB", "2GiB" or "1000000".

    Raises:
        ConfigError: the text has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?)?B?", text.strip().upper())
    if match is None:
        raise ConfigError(f"--shard-size must be a size such as 500MB, 1GB or 2GiB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2] or ""])
