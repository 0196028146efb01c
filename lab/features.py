"""Frame features of the world's lists, computed once per tower and stored beside the videos."""

from __future__ import annotations

from pathlib import Path

import torch
from arms import Data
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from mote_fast import load
from mote_fast.clip import ClipTowers
from mote_fast.data.items import read_labels, read_list
from mote_fast.runtime.files import staged

# Clips x crops of every video (docs/method.md, Views); an epoch takes one view of a training video.
VIEWS = "3x1"


def tower_name(towers: ClipTowers) -> str:
    """A name for both towers from their weights, so that features and runs of other towers are not reused."""
    return f"{towers.image_fingerprint()[:8]}{towers.text_fingerprint()[:8]}"


def features_of(model_folder: Path, world: Path, names: list[str]) -> tuple[dict[str, Data], float]:
    """Return the features of the named lists, and the towers' logit scale."""
    model = load(model_folder)
    model.feature_cache = None
    towers = tower_name(model.clip)
    found = {}
    for name in names:
        cache = world / f"{name}.{towers}.safetensors"
        if not cache.exists():
            items = read_list(world / f"{name}.txt", world)
            bar = tqdm(items, desc=f"features of {name}", unit="video", disable=None)
            with torch.no_grad():
                frames = torch.stack([model.view_features(item.path, VIEWS) for item in bar])
                classes = model.class_features(read_labels(world / f"{name}.csv"))
            labels = torch.tensor([item.label for item in items])
            with staged(cache) as part:
                save_file({"frames": frames.contiguous(), "labels": labels, "classes": classes}, part)
        found[name] = Data(**load_file(cache))
    return found, float(model.clip.logit_scale.detach())
