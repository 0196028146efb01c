"""Measure zero-shot accuracy on a folder of labelled videos, by the paper's protocol.

python examples/evaluate.py                                   # drawn videos, with the model of the package
python examples/evaluate.py videos/ucf101 --model mote-b16-k400
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from drawn_clips import draw_folder

from mote_fast.cli import main as mote_fast_command

RESULTS = Path("results")


def main() -> None:
    """Evaluate as `mote-fast eval` does, then read its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="it has a sub-folder for each class")
    parser.add_argument("--model", default="tiny", help="a name of mote_fast.list_models(), a folder or a file")
    given = parser.parse_args()
    folder = given.folder or draw_folder(Path("drawn"))
    arguments = ["--protocol", "zeroshot", "--list", str(folder), "--model", given.model, "--workers", "2"]
    status = mote_fast_command(["eval", *arguments, "--output", str(RESULTS)])
    # 3 means that a video could not be read; the result counts it as wrong.
    if status not in (0, 3):
        sys.exit(status)
    result = json.loads((RESULTS / "result.json").read_text(encoding="utf-8"))
    print(json.dumps(result["mean"], indent=2))
    print(f"by class: {RESULTS / 'per_class.csv'}")


if __name__ == "__main__":
    main()
