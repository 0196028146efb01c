"""Put a trained model into the package as preset "tiny": half precision, at most 4 MB.

python lab/pack_tiny.py --model runs/tiny/best
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mote_fast import load
from mote_fast.runtime.environment import PRESETS

LARGEST_BYTES = 4_000_000

# As lab/localization.py calibrates it: 95 % of drawn actions have this level.
REJECT_LEVEL = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/tiny/best"), help="model folder")
    parser.add_argument("--output", type=Path, default=PRESETS / "tiny")
    options = parser.parse_args()
    model = load(options.model, dtype=torch.float16)
    model.reject_level = REJECT_LEVEL
    model.save(options.output)
    size = sum(file.stat().st_size for file in options.output.iterdir())
    if size > LARGEST_BYTES:
        parser.error(f"{options.output} has {size} bytes, more than {LARGEST_BYTES}")


if __name__ == "__main__":
    main()
