"""Frame features of the world's lists, computed once for a tower and kept beside the videos."""

from __future__ import annotations

from pathlib import Path

import torch
from arms import Data
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from mote_fast import load
from mote_fast.data.items import read_labels, read_list
from mote_fast.world.write import TRAIN

# Clips x crops: of the training videos, of which an epoch takes one each; and of the test videos (spec section 7).
TRAIN_VIEWS, TEST_VIEWS = "3x1", "3x1"


def features_of(model_folder: Path, world: Path, names: list[str]) -> tuple[dict[str, Data], float]:
    """Return the features of the lists named, and the tower's logit scale."""
    model = load(model_folder)
    model.feature_cache = None
    fingerprint = model.clip.image_fingerprint()[:16]
    found = {}
    for name in names:
        cache = world / f"{name}.{fingerprint}.safetensors"
        if not cache.exists():
            items = read_list(world / f"{name}.txt", world)
            views = TRAIN_VIEWS if name == TRAIN else TEST_VIEWS
            bar = tqdm(items, desc=f"features of {name}", unit="video", disable=None)
            with torch.no_grad():
                frames = torch.stack([model.view_features(item.path, views) for item in bar])
                classes = model.class_features(read_labels(world / f"{name}.csv"))
            labels = torch.tensor([item.label for item in items])
            save_file({"frames": frames.contiguous(), "labels": labels, "classes": classes}, cache)
        found[name] = Data(**load_file(cache))
    return found, float(model.clip.logit_scale.detach())
