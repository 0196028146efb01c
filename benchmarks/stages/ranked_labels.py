"""What int8 does to features and to ranked labels, over many rankings: one video's best label alone says little.

Clips of the video are ranked against label sets drawn at random. With random weights and random class features the
scores of neighbouring ranks nearly touch, so real labels change places less.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.data.views import Views
from stages.setting import INT8, LABELS, Setting

CLIPS, LABEL_SETS = 4, 25
TOP = 5


@torch.no_grad()
def int8_on_labels(setting: Setting) -> dict[str, Any] | None:
    """Compare int8 with float32 on every clip and label set; None where there is no int8 arm."""
    prepared = setting.prepared.get(INT8)
    if prepared is None:
        return None
    # As a user's calls batch the frames, on which int8 depends.
    exact, quantized = (
        model.view_features(setting.video, Views(CLIPS, 1)) for model in (setting.folded, prepared.model)
    )
    cosines = F.cosine_similarity(quantized, exact, dim=-1)
    head = setting.folded.head
    sets = [setting.unit_rows(head.embed_dim, seed=100 + number) for number in range(LABEL_SETS)]
    scores, expected = (torch.cat([head(each, classes) for classes in sets]) for each in (quantized, exact))
    return {
        "rankings": len(scores),
        "labels": LABELS,
        "mean_cosine": round(cosines.mean().item(), 6),
        "lowest_cosine": round(cosines.min().item(), 6),
    } | agreement(scores, expected)


def agreement(scores: Tensor, expected: Tensor) -> dict[str, float]:
    """How alike two score tables [N, C] rank: share of equal best labels, and of the top five that both have."""
    mine, other = (table.topk(TOP, dim=-1).indices for table in (scores, expected))
    shared = (mine[:, :, None] == other[:, None, :]).any(-1)
    return {
        "same_top1": round((mine[:, 0] == other[:, 0]).float().mean().item(), 4),
        "top5_overlap": round(shared.float().mean().item(), 4),
        "largest_cosine_change": round((scores - expected).abs().max().item(), 6),
    }
