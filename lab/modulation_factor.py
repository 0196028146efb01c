"""The share of the temporal feature that the modulation keeps on each list of the world, at the paper's gamma.

python lab/modulation_factor.py --clip runs/tiny_clip --world runs/tradeoff/world
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from features import features_of
from torch.nn import functional as F
from world.splits import CLOSE_SET, ZERO_SHOT
from world.write import TRAIN

from mote_fast.head.modulation import GAMMA, modulation_factor


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--clip", type=Path, default=Path("runs/tiny_clip"), help="what lab/train_clip.py wrote, or tiny"
    )
    parser.add_argument("--world", type=Path, default=Path("runs/tradeoff/world"))
    options = parser.parse_args()
    data, _ = features_of(options.clip, options.world, [TRAIN, CLOSE_SET, *ZERO_SHOT])
    trained = F.normalize(data[TRAIN].classes, dim=-1)
    print(f"{'list':<14}{'cosine to nearest trained class':>34}{'median factor, gamma ' + str(GAMMA):>28}")
    for name in (CLOSE_SET, *ZERO_SHOT):
        classes = F.normalize(data[name].classes, dim=-1)
        nearest = (classes @ trained.t()).amax(-1).mean().item()
        factor = modulation_factor(data[name].frames.flatten(0, 1), classes, trained).median().item()
        print(f"{name:<14}{nearest:>34.2f}{factor:>28.4f}")


if __name__ == "__main__":
    main()
