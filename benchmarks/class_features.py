"""Class features of a label set: ours against encoding all 77 positions, and a warm cache in a second process.

A third arm encodes each prompt at the length it needs but shares no prefix, to show what sharing buys.

    python benchmarks/class_features.py --json benchmarks/results/class_features.json

ViT-B/16 shapes with random weights; the time does not depend on the weights' values. The arms alternate label chunk by
label chunk, so that a slow minute of the machine hits both.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from harness import environment, publish
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import mote_fast
from mote_fast.cli.options import kinetics400_labels
from mote_fast.clip import TEMPLATES, ClipTowers, encode_classes, load_towers
from mote_fast.clip.class_features import TOKENS_PER_BATCH

# What a later process does: the same model, the same labels, the cache of the first.
WARM_PROCESS = """
import sys, time
import torch
from mote_fast.clip import FeatureCache, encode_classes, load_towers
from mote_fast.cli.options import kinetics400_labels
torch.manual_seed(0)
towers = load_towers(sys.argv[1])
labels = kinetics400_labels()[: int(sys.argv[3])]
start = time.perf_counter()
encode_classes(towers, labels, cache=FeatureCache(sys.argv[2]))
sys.stdout.write(str(time.perf_counter() - start))
"""


@torch.no_grad()
def encode_padded(towers: ClipTowers, labels: list[str]) -> Tensor:
    """The baseline: every prompt at all 77 positions through open_clip, the 28 of a label in one batch."""
    rows = []
    for label in labels:
        tokens = towers.tokenizer([template.format(label) for template in TEMPLATES])
        prompts = F.normalize(towers.model.encode_text(tokens), dim=-1)
        rows.append(F.normalize(prompts.mean(0), dim=0))
    return torch.stack(rows)


@torch.no_grad()
def encode_short(towers: ClipTowers, labels: list[str]) -> Tensor:
    """Every prompt at the length it needs, in batches of equal length, from its first token on."""
    tokens = towers.tokenizer([template.format(label) for label in labels for template in TEMPLATES])
    ends = towers.end_positions(tokens)
    prompts = torch.empty(len(tokens), towers.embed_dim)
    for end in ends.unique():
        for rows in (ends == end).nonzero().squeeze(1).split(TOKENS_PER_BATCH // (int(end) + 1)):
            prompts[rows] = F.normalize(towers.encode_tokens(tokens[rows]), dim=-1)
    return F.normalize(prompts.unflatten(0, (len(labels), -1)).mean(1), dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument(
        "--labels", type=int, default=400, help="how many of Kinetics-400's names (default %(default)s)"
    )
    parser.add_argument(
        "--compared", type=int, help="labels that all arms encode in turn (default all, 0 times the cache alone)"
    )
    parser.add_argument("--chunk", type=int, default=40, help="labels per turn of an arm (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    labels = kinetics400_labels()[: arguments.labels]
    compared = labels[: arguments.compared]

    torch.manual_seed(0)
    towers = load_towers(arguments.model)
    arms = {"mote_fast": encode_classes, "padded to 77": encode_padded, "short, no shared prefix": encode_short}
    seconds = dict.fromkeys(arms, 0.0)
    worst = 0.0
    for start in tqdm(range(0, len(compared), arguments.chunk), unit="chunk"):
        chunk = compared[start : start + arguments.chunk]
        results = {}
        for name, encode in arms.items():
            begin = time.perf_counter()
            results[name] = encode(towers, chunk)
            seconds[name] += time.perf_counter() - begin
        worst = max(worst, (results["mote_fast"] - results["padded to 77"]).abs().max().item())

    with tempfile.TemporaryDirectory() as folder:
        cold, warm = (
            float(
                subprocess.run(
                    [sys.executable, "-c", WARM_PROCESS, arguments.model, folder, str(len(labels))],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
            for _ in range(2)
        )
    report = {
        "environment": environment(),
        "version": mote_fast.__version__,
        "model": arguments.model,
        "labels": len(labels),
        "prompts": len(labels) * len(TEMPLATES),
        "seconds_all_labels": {"first process, cold cache": cold, "second process, warm cache": warm},
        "warm_share_of_cold": warm / cold,
    }
    if compared:
        report |= {
            "labels_compared": len(compared),
            "seconds_compared": seconds,
            "speedup": seconds["padded to 77"] / seconds["mote_fast"],
            "worst_difference": worst,
        }
    publish(report, arguments.json)


if __name__ == "__main__":
    main()
