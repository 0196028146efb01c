"""What a run is built from: the configuration's options reach the clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from mote_fast import Prompts, create_model, load
from mote_fast.clip import encode_classes
from mote_fast.data import ClipRecipe, VideoDataset, VideoLoader, make_loader
from mote_fast.data.transforms import CropsAlong
from mote_fast.errors import ConfigError, LabelError
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.training.build import _pixel_dtype, build_loaders, build_model, store_class_features
from mote_fast.training.config.sections import OptimConfig
from mote_fast.training.config.train_config import TrainConfig, load_config
from mote_fast.training.loop import train
from tests.tolerances import assert_close
from tests.training.conftest import COLOURS, VideoFolder


@pytest.mark.parametrize(
    ("settings", "warned"),
    [({}, True), ({"data__augmentation": "none"}, False), ({"data__flip_labels": "f.csv"}, False)],
)
def test_mirrored_sides_are_warned_of(
    settings: dict,
    warned: bool,
    videos: VideoFolder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kinetics' recipe mirrors half of the videos, which for "moving right" teaches the opposite."""
    monkeypatch.chdir(tmp_path)
    Path("f.csv").write_text("id,flipped\n1,\n")
    config = load_config(videos.write_config(tmp_path / "run", **settings))
    names = ["moving", "moving right", *COLOURS][: len(COLOURS)]
    build_loaders(config, create_model("ViT-test"), names, ProcessGroup(0, 1, torch.device("cpu"))).close()
    assert ("'moving right'" in caplog.text) == warned


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
    build_loaders(config, create_model("ViT-test"), list(COLOURS), world).close()
    assert [(recipe.views.crops, recipe.crops_along) for recipe in recipes] == [(1, along), (3, along)]


def test_a_trained_model_is_interpolated_with_its_start(videos: VideoFolder, tmp_path: Path) -> None:
    """What train.py writes records the CLIP that it started from and the wanted share, and a later run passes it on."""
    clip = tmp_path / "clip.pt"
    torch.save(create_model("ViT-test").clip.model.state_dict(), clip)
    start = {"model__clip_pretrained": str(clip), "model__activation": "quick_gelu", "model__interpolate": 0.75}
    train(videos.config(tmp_path / "run", **start, run__max_steps=2))
    tuned = load(tmp_path / "run" / "model", interpolate=1.0)
    world = ProcessGroup(0, 1, torch.device("cpu"))
    config = videos.config(tmp_path / "next", model__checkpoint=str(tmp_path / "run" / "model"), model__interpolate=0.5)
    build_model(config.model, config.data, world).save(tmp_path / "again")
    original = torch.load(clip, weights_only=True)["visual.proj"]
    for folder, share in ((tmp_path / "run" / "model", 0.75), (tmp_path / "again", 0.5)):
        mixed = load(folder, clip=clip).clip.model.visual.proj
        assert torch.equal(mixed, share * tuned.clip.model.visual.proj + (1 - share) * original)
        assert not torch.equal(mixed, tuned.clip.model.visual.proj)


def test_a_share_without_an_original_is_refused(videos: VideoFolder, tmp_path: Path) -> None:
    """A run cannot ask for an interpolation that nobody could make, and says so before it trains."""
    with pytest.raises(ConfigError, match="random towers have no original"):
        videos.config(tmp_path / "run", model__interpolate=0.99)
    create_model("ViT-test").save(tmp_path / "random")
    config = videos.config(tmp_path / "run", model__checkpoint=str(tmp_path / "random"), model__interpolate=0.99)
    with pytest.raises(ConfigError, match="records no original CLIP"):
        build_model(config.model, config.data, ProcessGroup(0, 1, torch.device("cpu")))


def test_prompts_reach_the_training_classes(videos: VideoFolder, tmp_path: Path) -> None:
    """The head is trained on class features of the configured texts; descriptions of other classes end the run."""
    names = list(COLOURS)
    (tmp_path / "templates.txt").write_text("look, {}\n")
    (tmp_path / "told.json").write_text(json.dumps({names[0]: ["It is bright."]}))
    files = {"data__templates": str(tmp_path / "templates.txt"), "data__descriptions": str(tmp_path / "told.json")}
    config = videos.config(tmp_path / "run", **files, data__description_weight=0.75)
    world = ProcessGroup(0, 1, torch.device("cpu"))
    model = build_model(config.model, config.data, world)
    store_class_features(model, names, world)
    wanted = Prompts(["look, {}"], {names[0]: ["It is bright."]}, 0.75)
    assert model.prompts == wanted
    stored = model.head.train_class_features
    assert stored is not None
    assert_close(stored, encode_classes(model.clip, names, wanted), "equivalent")
    with pytest.raises(LabelError, match="none of the 1 classes"):
        store_class_features(model, ["another"], world)


def test_pixels_have_the_dtype_of_autocast_on_a_gpu() -> None:
    """Half the memory, and the values that autocast would round them to; on a CPU they stay float32."""
    for precision, expected in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
        config = TrainConfig(optim=OptimConfig(precision=precision))
        assert _pixel_dtype(config, torch.device("cuda")) == expected
        assert _pixel_dtype(config, torch.device("cpu")) == torch.float32
