"""Arguments of the commands that find videos by words: index and search."""

from __future__ import annotations

import argparse
from typing import Any

from mote_fast.cli import options
from mote_fast.cli.checked_number import Number


def add_commands(commands: Any) -> None:
    """Register the commands."""
    described = "Indexes of videos on disk, which `mote-fast search` searches by words or by a video."
    parser = commands.add_parser("index", help="make and change an index of videos", description=described)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_adding(actions, "build", "make an index of videos, or go on with one", "1x1")
    _add_adding(actions, "add", "add videos to an index", None)
    action = _add_action(actions, "delete", "delete videos from an index")
    action.add_argument("ids", nargs="+", metavar="ID", help="ids, or paths of videos")
    _add_action(actions, "info", "what an index holds, and the model that it belongs to")
    _add_search(commands)


def _add_action(actions: Any, name: str, purpose: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    parser.add_argument("index", metavar="INDEX", help="folder of the index")
    options.add_json(parser)
    options.set_run(parser, "index", f"run_{name}")
    return parser


def _add_adding(actions: Any, name: str, purpose: str, views: str | None) -> None:
    parser = _add_action(actions, name, f"{purpose}; those that it has are skipped, so that runs resume")
    options.add_videos(parser, views)
    if views is not None:
        purpose = "a row for every SECONDS of each video, found with their time span (default: a row for each video)"
        parser.add_argument(
            "--moments", type=Number("--moments", whole=False, least=0.01), metavar="SECONDS", help=purpose
        )
    parser.add_argument("--replace", action="store_true", help="embed and replace videos that it has, too")
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="build a graph of all rows afterwards, for search --approximate, and print its recall; needs usearch",
    )
    options.add_model(parser)
    options.add_loader(parser)


def _add_search(commands: Any) -> None:
    described = "Find the videos of an index that words describe, or that are like another video."
    parser = commands.add_parser("search", help="find videos by words, or by a video", description=described)
    parser.add_argument("index", metavar="INDEX", help="folder of the index")
    parser.add_argument("query", nargs="?", metavar="WORDS", help="what the videos show")
    parser.add_argument("--like", metavar="VIDEO", help="a video in place of words")
    options.add_value(parser, "--topk", 10, "videos to print", "K", least=1)
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="faster, and may miss some; needs an index that was built with --approximate, and usearch",
    )
    options.add_json(parser)
    options.add_time_limit(parser)
    options.add_model(parser, encodes_labels=True)
    options.add_templates(parser, "words (default: the words as they are)")
    options.set_run(parser, "search")
