"""``mote-fast doctor``: what is installed, which backend serves what, and why each other one does not."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mote_fast.cli.backends import device_summary, survey, versions
from mote_fast.clip.feature_cache import FeatureCache
from mote_fast.clip.model_cache import ModelCache


def add_command(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("doctor", help="report versions and chosen backends", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report; finding something missing is no failure. Returns 0."""
    cache, models = FeatureCache(), ModelCache()
    report: dict[str, Any] = {
        "device": device_summary(),
        "versions": versions(),
        "backends": [vars(choice) for choice in survey()],
        "cache": {"path": str(cache.path), "bytes": cache.size(), "max_bytes": cache.max_bytes},
        "int8_cache": {"path": str(models.folder), "bytes": models.size(), "max_bytes": models.max_bytes},
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return 0
    print(f"device     {report['device']}")
    for package, version in report["versions"].items():
        print(f"  {package:22} {version or 'not installed'}")
    for choice in report["backends"]:
        print(f"{choice['job']:10} {choice['chosen']}")
        for other, why in choice["others"].items():
            print(f"  not {other}: {why}")
    for title, key in (("cache", "cache"), ("int8 cache", "int8_cache")):
        kept = report[key]
        filled, bound = kept["bytes"] / 1e6, kept["max_bytes"] / 1e6
        print(f"{title:10} {kept['path']} ({filled:.1f} of {bound:.0f} MB; delete it freely)")
    return 0
