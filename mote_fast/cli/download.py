"""``mote-fast download``: fetches the weights of models that have a name."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mote_fast.cli import outputs
from mote_fast.errors import MoteError
from mote_fast.model import zoo
from mote_fast.runtime.text import visible


def run(arguments: argparse.Namespace) -> int:
    """Fetch each model, or check the one on the disk; print the paths. Returns 0, or 2 if any failed."""
    errors: list[str] = []
    for name in arguments.models:
        try:
            path = download_shown(name)
        except MoteError as error:
            errors.append(str(error))
        else:
            outputs.write(visible(str(path)))
    return outputs.report(errors)


def download_shown(name: str, *, original: bool = True) -> Path:
    """Return what ``mote_fast.download`` returns; say what is fetched, and show progress on a terminal."""
    bar: tqdm[Any] | None = None

    def show(done: int, size: int) -> None:
        nonlocal bar
        if bar is None:
            missing = f"{size / 1e6:.1f} MB" + (f", of which {done / 1e6:.1f} MB are there" if done else "")
            print(f"note: {name}: fetching {zoo.list_models()[name].url} ({missing}), once", file=sys.stderr)
            bar = tqdm(unit="B", unit_scale=True, desc=name, disable=None)
        bar.total = size
        bar.update(done - bar.n)

    try:
        return zoo.download(name, original=original, progress=show)
    finally:
        if bar is not None:
            bar.close()
