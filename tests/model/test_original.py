"""The CLIP that a folder's image tower was tuned from: recorded, found again, interpolated with once."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mote_fast
from mote_fast.clip import pretrained
from mote_fast.errors import CheckpointError, ConfigError
from mote_fast.model import original
from mote_fast.model.checkpoint import released_checkpoint
from mote_fast.model.original import OriginalClip, image_tower, record_original
from mote_fast.runtime.weights import CONFIG_FILE
from tests.tolerances import assert_close


def tuned_folder(path: Path, clip: Path, share: float | None = None) -> Path:
    """A model folder as train.py leaves it: towers from a CLIP's file, the image tower then moved."""
    torch.manual_seed(0)
    model = mote_fast.create_model("ViT-test", layers=1, clip_pretrained=clip, activation="quick_gelu")
    assert model.original is not None
    model.original = OriginalClip(model.original.fingerprint, model.original.tag, share)
    with torch.no_grad():
        for value in image_tower(model.clip).values():
            value.add_(torch.randn_like(value), alpha=0.1)
    model.save(path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CLIP that training starts from."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("clip") / "original.pt"
    torch.save(mote_fast.create_model("ViT-test", layers=1).clip.model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    return tuned_folder(tmp_path_factory.mktemp("model") / "model", clip, 0.99)


def edit(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of a folder with changes to its record of the original."""
    mote_fast.load(folder, interpolate=1.0).save(target)
    config = json.loads((target / CONFIG_FILE).read_text())
    config["original"] |= changes
    (target / CONFIG_FILE).write_text(json.dumps(config))
    return target


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, None])
def test_a_folder_is_interpolated_with_its_clip(folder: Path, clip: Path, share: float | None) -> None:
    """Share * tuned + (1 - share) * original, image tower only; without a share the one that training asked for."""
    tuned, start = mote_fast.load(folder, interpolate=1.0), torch.load(clip, weights_only=True)
    found = mote_fast.load(folder, clip=clip, interpolate=share)
    used = 0.99 if share is None else share
    state, before = found.clip.model.state_dict(), tuned.clip.model.state_dict()
    for name, value in state.items():
        if name.startswith("visual."):
            assert_close(value, used * before[name] + (1 - used) * start[name])
        else:
            assert torch.equal(value, before[name])
    assert found.tuned_share == found.fold().config.tuned_share == used
    assert found.original == (tuned.original if used == 1.0 else None)


def test_a_released_file_of_the_same_model_agrees(folder: Path, clip: Path, tmp_path: Path) -> None:
    """A folder gives, to the last bit, what the same weights give in the official layout."""
    torch.save(released_checkpoint(mote_fast.load(folder, interpolate=1.0)), tmp_path / "same.pt")
    theirs = mote_fast.load(tmp_path / "same.pt", clip=clip, activation="quick_gelu").state_dict()
    ours = mote_fast.load(folder, clip=clip).state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_nothing_is_opened_unasked(folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    """A folder that asks for a share is loaded as it is, with a warning; a share of 1 is an answer."""
    monkeypatch.setattr(original, "load_towers", None)
    with caplog.at_level(logging.WARNING):
        as_it_is = mote_fast.load(folder)
    assert "interpolate=0.99" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        tuned = mote_fast.load(folder, interpolate=1.0)
    assert not caplog.records
    assert as_it_is.config == tuned.config
    assert all(torch.equal(value, tuned.state_dict()[name]) for name, value in as_it_is.state_dict().items())


def test_an_interpolated_folder_is_not_interpolated_again(folder: Path, clip: Path, tmp_path: Path) -> None:
    """What was interpolated once says so, and refuses."""
    mote_fast.load(folder, clip=clip).save(tmp_path / "mixed")
    mixed = mote_fast.load(tmp_path / "mixed")
    assert (mixed.tuned_share, mixed.original) == (0.99, None)
    with pytest.raises(ConfigError, match=r"interpolated image tower already, with 0\.99"):
        mote_fast.load(tmp_path / "mixed", clip=clip, interpolate=0.99)


def test_another_clip_is_refused(folder: Path, clip: Path, tmp_path: Path) -> None:
    """Weights of the same shapes are compared by their fingerprint; the text tower does not count."""
    state: dict[str, Tensor] = torch.load(clip, weights_only=True)
    torch.save(state | {"visual.proj": state["visual.proj"] + 1e-6}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="image tower has other weights"):
        mote_fast.load(folder, clip=tmp_path / "other.pt", interpolate=0.5)
    torch.save(state | {"text_projection": state["text_projection"] + 1}, tmp_path / "same_tower.pt")
    assert mote_fast.load(folder, clip=tmp_path / "same_tower.pt").tuned_share == 0.99


def test_a_clip_by_its_name_is_not_interpolated() -> None:
    """Nothing of it was tuned."""
    with pytest.raises(ConfigError, match="leave out clip and interpolate"):
        mote_fast.load("clip:ViT-B-16/openai", interpolate=0.99)


def test_a_model_that_cannot_is_an_error(folder: Path, clip: Path, tmp_path: Path, tiny: Any) -> None:
    """No record, no share, no tag: each is named, and none is passed over."""
    tiny.save(tmp_path / "random")
    for given in ({"interpolate": 0.99}, {"clip": clip}):
        with pytest.raises(ConfigError, match="records no original CLIP"):
            mote_fast.load(tmp_path / "random", **given)
    with pytest.raises(ConfigError, match="give clip"):
        mote_fast.load(folder, interpolate=0.99)
    with pytest.raises(ConfigError, match="give interpolate too"):
        mote_fast.load(tuned_folder(tmp_path / "plain", clip), clip=clip)


@pytest.mark.parametrize(
    "change",
    [{"fingerprint": 1}, {"tag": ["openai"]}, {"share": 2.0}, {"share": "1"}, {"share": True}, {"surprise": 1}],
)
def test_a_damaged_record_is_named(folder: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    """A record that no ``save`` writes is a CheckpointError with the folder's name."""
    edited = edit(folder, tmp_path / "edited", **change)
    with pytest.raises(CheckpointError, match="edited: not a model configuration"):
        mote_fast.load(edited)


@pytest.mark.parametrize("tag", ["/etc/passwd", "hf-hub:someone/model", "local-dir:/tmp", "https://example.org/x.pt"])
def test_a_strangers_record_opens_no_file(folder: Path, tmp_path: Path, monkeypatch: Any, tag: str) -> None:
    """Also on request a recorded tag is one of open_clip's own, not a path, repository or address."""
    monkeypatch.setattr(original, "load_towers", None)
    with pytest.raises(CheckpointError, match="no tag of open_clip"):
        mote_fast.load(edit(folder, tmp_path / "edited", tag=tag), interpolate=0.5)


def test_a_tag_is_recorded_and_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Weights that open_clip names are recorded by their tag, and need no ``clip``."""
    towers = mote_fast.create_model("ViT-B-32", layers=0, header="mean", clip_pretrained=None).clip
    assert record_original(towers, "ViT-B-32", "openai").tag == "openai"
    assert record_original(towers, "ViT-B-32", tmp_path / "ViT-B-32.pt").tag is None
    asked: list[tuple[Any, ...]] = []

    def load_towers(*given: Any, **options: Any) -> Any:
        asked.append(given)
        return towers

    monkeypatch.setattr(original, "load_towers", load_towers)
    recorded = record_original(towers, "ViT-B-32", "openai")
    found = original.load_original(towers, recorded, None, "model")
    assert asked == [("ViT-B-32", "openai")]
    assert found.keys() == image_tower(towers).keys()
    assert pretrained.tag_config("ViT-B-32", "openai")
