"""``mote-fast tradeoff``: HM_ZS and the trade-off score from the results of several evaluations of one model."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from mote_fast.evaluation.accuracy import FULL_CLASS, RUNNING
from mote_fast.evaluation.combine import combine, read_result
from mote_fast.evaluation.report import ALL, READABLE


def add_command(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("tradeoff", help="HM_ZS and trade-off score from results of eval", description=__doc__)
    parser.add_argument(
        "results", nargs="+", metavar="RESULT", help="result.json files, or their folders: zero-shot, and one close-set"
    )
    parser.add_argument("--score", choices=(RUNNING, FULL_CLASS), default=RUNNING, help="default %(default)s")
    parser.add_argument("--videos", choices=(READABLE, ALL), default=READABLE, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Combine the results and print them. Returns 0."""
    found = combine([read_result(path) for path in arguments.results], arguments.score, arguments.videos)
    if arguments.json:
        print(json.dumps(asdict(found), ensure_ascii=False, indent=2))
        return 0
    if found.close_set is not None:
        print(f"{found.close_set[1]:6.2f}  {found.close_set[0]}, close-set")
    for dataset, value in found.zero_shot.items():
        print(f"{value:6.2f}  {dataset}, zero-shot")
    print(f"{found.hm_zs:6.2f}  HM_ZS, harmonic mean of the zero-shot accuracies")
    if found.score is not None:
        print(f"{found.score:6.2f}  trade-off, harmonic mean of close-set accuracy and HM_ZS")
    return 0
