"""What a run is built from: the configuration's options reach the clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from mote_fast import create_model
from mote_fast.data import ClipRecipe, VideoDataset, VideoLoader, make_loader
from mote_fast.data.transforms import CropsAlong
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.training.build import build_loaders
from mote_fast.training.config.train_config import load_config
from tests.training.conftest import COLOURS, VideoFolder


@pytest.mark.parametrize("along", get_args(CropsAlong))
def test_crops_along_reaches_validation(
    along: CropsAlong, videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A validation of three crops takes them along the configured side."""
    recipes: list[ClipRecipe] = []

    def recording(dataset: VideoDataset, *arguments: Any) -> VideoLoader:
        recipes.append(dataset.recipe)
        return make_loader(dataset, *arguments)

    monkeypatch.setattr("mote_fast.training.build.make_loader", recording)
    config = load_config(videos.write_config(tmp_path / "run", data__crops_along=along, data__views="1x3"))
    world = ProcessGroup(0, 1, torch.device("cpu"))
    build_loaders(config, create_model("tiny"), list(COLOURS), world).close()
    assert [(recipe.views.crops, recipe.crops_along) for recipe in recipes] == [(1, along), (3, along)]
