"""``mote-fast configs``: list the configurations that come with the package, or print one of them."""

from __future__ import annotations

import argparse

from mote_fast.cli import outputs
from mote_fast.runtime.json_text import to_json
from mote_fast.training.config.shipped import config_path, shipped, summary


def run(arguments: argparse.Namespace) -> int:
    """Print the names with what each is for, or one file. Returns 0."""
    if arguments.name is not None:
        outputs.write(config_path(arguments.name).read_text(encoding="utf-8").removesuffix("\n"))
        return 0
    described = {name: summary(path) for name, path in shipped().items()}
    if arguments.json:
        outputs.write(to_json(described, indent=2))
        return 0
    width = max(map(len, described))
    outputs.write("\n".join(f"{name:{width}}  {purpose}".rstrip() for name, purpose in described.items()))
    return 0
