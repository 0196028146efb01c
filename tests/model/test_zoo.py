"""Models by name: the registry, and loading what it names."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import mote_fast
from mote_fast.errors import CheckpointError, ConfigError
from mote_fast.model import zoo
from tests.tolerances import assert_close
from tests.web import Site, serve


@pytest.fixture
def released_site(clip_state: Any, released_head: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The registry's first model comes from this machine: a small file in the released layout."""
    visual = {name: value for name, value in clip_state.items() if name.startswith("visual.") or name == "logit_scale"}
    file = io.BytesIO()
    torch.save({"epoch": 1, "model_state_dict": visual, "fusion_model_state_dict": released_head}, file)
    with serve(file.getvalue()) as site:
        first, *others = zoo._MODELS
        monkeypatch.setattr(zoo, "_MODELS", (replace(first, url=site.url.replace("weights.bin", "B.pt")), *others))
        yield site


def test_the_registry_states_what_is_published() -> None:
    """Names, addresses and licences; no size or hash that nobody published."""
    models = mote_fast.list_models()
    assert list(models) == ["mote-b16-k400", "mote-l14-k400", "tiny"]
    assert {model.name for model in models.values()} == set(models)
    for model in models.values():
        assert model.license
        assert model.summary
        assert model.url is None or model.url.startswith("https://github.com/ZMHH-H/MoTE/releases/download/v1.0/")
    assert (models["mote-l14-k400"].architecture, models["mote-l14-k400"].frames) == ("ViT-L-14", 8)
    assert models[zoo.SHIPPED_MODEL].path.is_dir()


def test_a_name_loads_the_released_file(released_site: Site, clip_file: Path, tmp_path: Path) -> None:
    """It is fetched once, and loads as its file does."""
    named = mote_fast.load("mote-b16-k400", clip=clip_file)
    again = mote_fast.load("mote-b16-k400", clip=clip_file)
    path = mote_fast.download("mote-b16-k400", original=False)
    assert path == tmp_path / "cache" / "models" / "B.pt"
    assert len(released_site.requests) == 1
    expected = mote_fast.load(path, clip=clip_file).state_dict()
    for model in (named, again):
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_no_code_of_a_fetched_file_runs(released_site: Site, clip_file: Path, tmp_path: Path) -> None:
    """A pickled object is refused as in any file."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    file = io.BytesIO()
    torch.save({"model_state_dict": Trap()}, file)
    released_site.content = file.getvalue()
    with pytest.raises(CheckpointError, match="refused"):
        mote_fast.load("mote-b16-k400", clip=clip_file)
    assert not (tmp_path / "ran").exists()


def test_without_a_network_the_error_says_what_to_do(released_site: Site, tmp_path: Path) -> None:
    """The address, and the place where the file would be found."""
    released_site.status = 503
    with pytest.raises(CheckpointError) as caught:
        mote_fast.load("mote-b16-k400")
    assert f"put it at {tmp_path / 'cache' / 'models' / 'B.pt'}" in str(caught.value)


def test_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nowhere to keep a file; it can be fetched by hand and loaded by its path."""
    monkeypatch.setattr("mote_fast.clip.feature_cache.default_cache_folder", lambda: None)
    with pytest.raises(CheckpointError, match=r"set HOME.*MoTE_B16\.pt"):
        mote_fast.load("mote-b16-k400")
    mote_fast.load("tiny")


def test_unknown_names() -> None:
    """The error lists the known ones."""
    with pytest.raises(CheckpointError, match=r"mote-b32.*mote-b16-k400.*clip:"):
        mote_fast.load("mote-b32")
    with pytest.raises(ConfigError, match="mote-b16-k400"):
        mote_fast.download("mote-b32")


def test_clip_with_mean_pooling(tmp_path: Path, moving_video: Path) -> None:
    """One view is scored by the softmax of the scaled cosine of the mean frame feature; no weight is untrained."""
    torch.save(mote_fast.create_model("ViT-test").clip.model.state_dict(), tmp_path / "towers.pt")
    clf = mote_fast.load(f"clip:ViT-test/{tmp_path / 'towers.pt'}", activation="quick_gelu", frames=4)
    assert (clf.head.layers, clf.frames, list(clf.head.parameters())) == (0, 4, [])
    labels = ["archery", "juggling balls"]
    classes = clf.class_features(labels)
    mean = F.normalize(clf.view_features(moving_video, "1x1").mean(1), dim=-1)[0]
    expected = (clf.clip.logit_scale * classes @ mean).softmax(0)
    assert_close(clf.scores(moving_video, classes, "1x1"), expected.detach())
    for name in ("clip:ViT-B-16", "clip:/openai"):
        with pytest.raises(ConfigError, match="ARCHITECTURE/TAG"):
            mote_fast.load(name)
    with pytest.raises(ConfigError, match="leave out clip and"):
        mote_fast.load("clip:ViT-B-16/openai", clip="x.pt")
