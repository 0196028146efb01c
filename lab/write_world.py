"""Write the world's videos and lists, for train.py and lab/tradeoff.py: about a minute on two cores; resumable.

python lab/write_world.py --folder runs/tradeoff/world
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm
from world.write import write_world


def write(folder: Path) -> None:
    """Write the missing files of the world, with a progress bar."""
    with tqdm(desc="writing videos", unit="video", disable=None) as bar:
        write_world(folder, progress=bar.update)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/tradeoff/world"))
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
