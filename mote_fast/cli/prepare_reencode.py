"""``mote-fast prepare reencode``: makes copies of videos that decode several times faster; originals stay unchanged."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mote_fast.cli import options, outputs
from mote_fast.data.find_videos import FoundVideos, find_videos
from mote_fast.errors import ConfigError, ListError
from mote_fast.prepare.encoding import PRESETS, Encoding
from mote_fast.prepare.reencode import FAULT_FILE, listed_videos, reencode, rewrite_list
from mote_fast.runtime.files import make_folder, staged


def add_command(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("reencode", help="rewrite videos so that they decode fast", description=__doc__)
    parser.add_argument("source", metavar="SOURCE", help="folder of the videos; only read")
    parser.add_argument("target", metavar="TARGET", help="folder for the copies, with the same sub-folders")
    listed = "re-encode only the videos of these lists, and write lists of the copies into TARGET"
    parser.add_argument("--list", default=[], metavar="LIST", help=listed, **options.SEVERAL)
    add_encoding(parser)
    parser.add_argument(
        "--keep-intact-prefix", action="store_true", help="keep the frames of a damaged video before the damage"
    )
    options.add_workers(parser, "re-encode", 600.0)
    options.add_json(parser)
    parser.set_defaults(run=run)


def add_encoding(group: options.Options) -> None:
    """Add the settings of written videos."""
    default = Encoding()
    options.add_value(group, "--short-side", default.short_side, "maximum; videos are never scaled up", "PIXELS")
    options.add_value(group, "--key-interval", default.key_interval, "distance between key frames", "FRAMES")
    options.add_value(group, "--crf", default.crf, "x264's quality, lower is better", "N")
    options.add_value(group, "--preset", default.preset, "x264's effort", choices=PRESETS)


def encoding_of(arguments: argparse.Namespace) -> Encoding:
    """Return the settings that ``add_encoding`` added.

    Raises:
        ConfigError: a value is out of range.
    """
    return Encoding(arguments.short_side, arguments.key_interval, arguments.crf, arguments.preset)


def run(arguments: argparse.Namespace) -> int:
    """Re-encode; a bad video or folder is reported and the others are processed. Returns 0, or 2 if any failed."""
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
    return outputs.report([*found.unreadable, *([damaged] if done.failures else [])])
