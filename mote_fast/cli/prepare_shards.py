"""``mote-fast prepare shards``: the videos of a list in tar files, for reading from end to end."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import asdict
from typing import Any

from mote_fast.data.items import check_items, read_labels, read_list
from mote_fast.data.shards.shard_index import INDEX_FILE
from mote_fast.errors import ConfigError
from mote_fast.prepare.write_shards import write_shards

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def add_command(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("shards", help="write videos into WebDataset tar shards", description=__doc__)
    parser.add_argument("list", metavar="LIST", help="list of videos: 'PATH LABEL' a line, or a CSV")
    parser.add_argument("folder", metavar="OUT", help="folder for the shards and their index")
    parser.add_argument("--root", default="", metavar="FOLDER", help="that the list's paths are relative to")
    parser.add_argument(
        "--shard-size", default="1GB", metavar="SIZE", help="of the videos in a shard, at most (default %(default)s)"
    )
    parser.add_argument("--samples", type=int, metavar="N", help="videos in a shard, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the order (default %(default)s)")
    parser.add_argument("--labels-file", metavar="FILE", help="class names, to check the list and to keep in the index")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="that check videos (default: cores)"
    )
    parser.add_argument(
        "--time-limit", type=float, default=60.0, metavar="SECONDS", help="to check one video (default %(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the shards; a bad video is left out and reported. Returns 0, or 2 when any was left out."""
    items = read_list(arguments.list)
    labels = read_labels(arguments.labels_file) if arguments.labels_file else []
    if labels:
        check_items(items, len(labels), arguments.list)
    index = write_shards(
        items,
        arguments.folder,
        root=arguments.root,
        max_bytes=bytes_of(arguments.shard_size),
        max_samples=arguments.samples,
        seed=arguments.seed,
        labels=labels,
        processes=arguments.workers,
        time_limit=arguments.time_limit,
    )
    if arguments.json:
        left_out = [asdict(failure) for failure in index.left_out]
        print(json.dumps({"shards": len(index.shards), "samples": index.samples, "left_out": left_out}, indent=2))
    else:
        print(f"{arguments.folder}: {index.samples} videos in {len(index.shards)} shards")
    for failure in index.left_out:
        print(f"mote-fast: error: {failure.path}: {failure.reason}", file=sys.stderr)
    if index.left_out:
        print(f"mote-fast: error: {len(index.left_out)} videos left out; see {INDEX_FILE}", file=sys.stderr)
    return 2 if index.left_out else 0


def bytes_of(text: str) -> int:
    """Read a size such as "1GB", "500 MB", "2GiB" or "1000000".

    Raises:
        ConfigError: the text is of another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?)?B?", text.strip().upper())
    if match is None:
        raise ConfigError(f"--shard-size must be a size such as 500MB, 1GB or 2GiB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2] or ""])
