"""``mote-fast prepare reencode``: makes copies of videos that decode several times faster; originals stay unchanged."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from mote_fast.cli import outputs
from mote_fast.data.find_videos import FoundVideos, find_videos
from mote_fast.errors import ConfigError, ListError
from mote_fast.prepare.prepare_settings import Encoding
from mote_fast.prepare.reencode import FAULT_FILE, listed_videos, reencode, rewrite_list
from mote_fast.runtime.files import make_folder, staged


def encoding_of(arguments: argparse.Namespace) -> Encoding:
    """Return the settings that ``add_encoding`` added.

    Raises:
        ConfigError: a value is out of range.
    """
    return Encoding(arguments.short_side, arguments.key_interval, arguments.crf, arguments.preset)


def run(arguments: argparse.Namespace) -> int:
    """Re-encode; a bad video or folder is reported and the others are processed. Returns 0, or 3 if any failed."""
    lists = [Path(path) for path in arguments.list]
    repeated = {path.name for path in lists if [other.name for other in lists].count(path.name) > 1}
    if repeated:
        raise ConfigError(f"--list: two lists are named {min(repeated)}; both would be rewritten to the same file")
    listed = [video for path in lists for video in listed_videos(path)]
    found = FoundVideos(listed, []) if lists else find_videos(arguments.source)
    if not found.paths:
        raise ListError(f"{arguments.source}: no such folder, or no videos below it")
    encoding = encoding_of(arguments)
    make_folder(Path(arguments.target), "TARGET", (FAULT_FILE, *(path.name for path in lists)))
    done = reencode(
        arguments.source,
        arguments.target,
        found.paths,
        encoding,
        keep_intact_prefix=arguments.keep_intact_prefix,
        workers=arguments.workers,
        time_limit=arguments.time_limit,
    )
    target = Path(arguments.target)
    for path in lists:
        with staged(target / path.name) as part:
            part.write_text(rewrite_list(path, done.names), encoding="utf-8")
    document = {
        "written": done.written,
        "already_done": done.already_done,
        "failures": [asdict(failure) for failure in done.failures],
        "lists": [str(target / path.name) for path in lists],
    }
    outputs.show(
        arguments, document, [f"{target}: {done.written} videos written, {done.already_done} were done before"]
    )
    damaged = f"{len(done.failures)} of {len(done.names)} videos are damaged or missing; see {target / FAULT_FILE}"
    return outputs.report_failed([*found.unreadable, *([damaged] if done.failures else [])])
