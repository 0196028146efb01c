"""``mote-fast base2novel``: base, novel and harmonic mean of each data set, from results of several seeds."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from mote_fast.cli import outputs
from mote_fast.errors import ConfigError
from mote_fast.evaluation.base_novel_table import BaseToNovelRow, collect, table_lines
from mote_fast.evaluation.combine import read_result


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
