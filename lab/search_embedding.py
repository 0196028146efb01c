"""Which embedding of a video its words find best: temporal features, modulated ones, or the plain mean of its frames.

Each class name of a list is a query, among the videos of that list. Modulation needs a label set, which an index does
not have: here it gets the names of the list.

python lab/search_embedding.py --world runs/tradeoff/world
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from features import features_of
from torch import Tensor
from world.splits import CLOSE_SET, ZERO_SHOT

from mote_fast import load
from mote_fast.head.scores import pool_views
from mote_fast.head.video_head import VideoHead

# Of the modulation: the paper's gamma, and one that keeps more of the temporal features.
GAMMAS = (0.05, 0.8)


def embeddings(head: VideoHead, frames: Tensor, classes: Tensor) -> dict[str, Tensor]:
    """Return the embeddings [N, d] of frame features [N, views, T, d], by name."""

    def pooled(features: Tensor) -> Tensor:
        return pool_views(features.mean(1).unflatten(0, frames.shape[:2]))

    every = frames.flatten(0, 1)
    found = {"temporal": pooled(head.features(every)), "frame mean": pooled(every)}
    for gamma in GAMMAS:
        head.set_inference(modulation=True, modulation_gamma=gamma)
        found[f"modulated, gamma {gamma}"] = pooled(head.features(every, classes))
    return found


def measures(videos: Tensor, labels: Tensor, queries: Tensor) -> tuple[float, float]:
    """Return the share of queries whose first video is right, and the mean average precision, percent."""
    order = (queries.double() @ videos.double().T).argsort(descending=True, stable=True)
    right = labels[order] == torch.arange(len(queries))[:, None]
    precision = right.cumsum(1) / torch.arange(1, len(videos) + 1)
    average = (precision * right).sum(1) / right.sum(1)
    return 100 * right[:, 0].double().mean().item(), 100 * average.mean().item()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, default=Path("runs/tradeoff/world"), help="of lab/write_world.py")
    parser.add_argument("--model", default="tiny", help="a name, or a folder")
    options = parser.parse_args()
    data, _ = features_of(Path(options.model), options.world, [CLOSE_SET, *ZERO_SHOT])
    head = load(options.model).head
    print("| list | videos | embedding | first video right | mean average precision |\n|---|---|---|---|---|")
    for name, found in data.items():
        # The class features are embeddings of the names in the templates of the training.
        for kind, videos in embeddings(head, found.frames, found.classes).items():
            first, average = measures(videos, found.labels, found.classes)
            print(f"| {name} | {len(videos)} | {kind} | {first:.1f} | {average:.1f} |")


if __name__ == "__main__":
    main()
