"""``mote-fast base2novel``: base, novel and harmonic mean of each data set, from results of several seeds."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from mote_fast.cli import options, outputs
from mote_fast.errors import ConfigError
from mote_fast.evaluation.base_novel_table import BaseToNovelRow, collect, table_lines
from mote_fast.evaluation.combine import read_result
from mote_fast.evaluation.report import ALL, READABLE


def add_command(commands: Any) -> None:
    """Register the command."""
    purpose = "table of results of eval --protocol base2novel"
    parser = commands.add_parser("base2novel", help=purpose, description=__doc__)
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULT",
        help="result.json files or folders of one, for each data set and seed",
    )
    options.add_score(parser)
    options.add_value(parser, "--videos", READABLE, "which videos count", choices=(READABLE, ALL))
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table. Returns 0."""
    if len(set(arguments.results)) < len(arguments.results):
        raise ConfigError("a result is given twice")
    results = {path: read_result(path) for path in arguments.results}
    rows = collect(results, arguments.score, arguments.videos)
    document = {"score": arguments.score, "videos": arguments.videos, "data_sets": [_entry(row) for row in rows]}
    outputs.show(arguments, document, table_lines(rows))
    return 0


def _entry(row: BaseToNovelRow) -> dict[str, Any]:
    return {**asdict(row), "base": row.base._asdict(), "novel": row.novel._asdict()}
