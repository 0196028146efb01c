"""The folded head against the unfolded one, which merges its experts at every call.

python benchmarks/fold.py --json benchmarks/results/fold.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from harness import compare, environment, publish

from mote_fast import VideoHead
from mote_fast.head.head_config import HeadConfig

# Width, heads and layers of the paper's two heads; four experts, eight frames.
SIZES = {"ViT-B-16": (512, 8, 4), "ViT-L-14": (768, 12, 6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="turns of each arm (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    report: dict[str, object] = {"environment": environment(), "rounds": arguments.rounds}
    for name, (width, heads, layers) in SIZES.items():
        for batch in (1, 8):
            torch.manual_seed(0)
            head = VideoHead(HeadConfig(width, heads, layers, 4)).eval()
            folded = head.fold()
            frames, classes = torch.randn(batch, 8, width), torch.randn(400, width)
            with torch.no_grad():
                expected = head(frames, classes)
                error = ((folded(frames, classes) - expected).norm() / expected.norm()).item()
                arms = {"unfolded": lambda: head(frames, classes), "folded": lambda: folded(frames, classes)}  # noqa: B023
                timings = compare(arms, arguments.rounds)
            medians = {arm: timing.median for arm, timing in timings.items()}
            report[f"{name}, batch {batch}"] = {
                "seconds": {arm: timing._asdict() for arm, timing in timings.items()},
                "speedup": medians["unfolded"] / medians["folded"],
                "relative_difference": error,
            }
    publish(report, arguments.json)


if __name__ == "__main__":
    main()
