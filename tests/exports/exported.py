"""Models of several kinds, and a model beside its exported graphs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import mote_fast
from mote_fast import VideoClassifier
from mote_fast.clip.clip_config import TEST_MODEL, ClipConfig
from mote_fast.clip.pretrained import build_towers
from mote_fast.exports.export_choices import GraphName
from mote_fast.exports.parity import difference, expected
from mote_fast.exports.record import RECORD_FILE, ExportRecord
from mote_fast.exports.runners import open_graph
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.video_head import VideoHead

# The required parity of scores, and of features relative to the largest.
PARITY = 1e-5


def random_model(
    vision: dict[str, Any] | None = None, quick_gelu: bool = False, dim: int = 64, **head: Any
) -> VideoClassifier:
    """Small random towers and a head of four experts with modulation."""
    torch.manual_seed(1)
    model = {"embed_dim": dim, "quick_gelu": quick_gelu, "vision_cfg": TEST_MODEL["vision_cfg"] | (vision or {})}
    towers = build_towers(ClipConfig.of_clip(TEST_MODEL | model, "small"))
    head = {"heads": 2, "layers": 2, "experts": 4} | head
    video_head = VideoHead(HeadConfig(embed_dim=dim, modulation_gamma=0.5, **head), torch.randn(9, dim))
    return VideoClassifier(towers, video_head, 8).eval()


def trained_model() -> VideoClassifier:
    model = mote_fast.load("tiny")
    model.head.set_inference(modulation=True)
    return model


# Another activation, another pooling, and a tower that is no ViT; the last has no temporal layers.
MODELS: dict[str, Callable[[], VideoClassifier]] = {
    "trained": trained_model,
    "quick_gelu": lambda: random_model(quick_gelu=True),
    "pooler": lambda: random_model({"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}),
    "resnet": lambda: random_model({"layers": [1, 1, 1, 1], "width": 8, "patch_size": None}, header="mean", layers=0),
}


class Exported:
    """A model beside its exported graphs."""

    def __init__(self, model: VideoClassifier, folder: Path) -> None:
        self.model = model
        self.folder = folder
        self.record = ExportRecord.from_json(json.loads((folder / RECORD_FILE).read_text()), "test")
        self.runners = {
            name: open_graph(folder, graph, self.record.format) for name, graph in self.record.graphs.items()
        }

    def worst(self, name: GraphName, *inputs: torch.Tensor) -> float:
        return difference(name, self.runners[name](*inputs), expected(self.model, name, *inputs))
