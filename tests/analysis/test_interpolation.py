"""The sweep of shares: every share's predictions are those of the model that is loaded with it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mote_fast
from mote_fast.analysis.interpolation import (
    InterpolatedTowers,
    SharePoint,
    check_shares,
    load_with_original,
    predict_shares,
    share_csv,
)
from mote_fast.errors import ActivationMismatchError, CheckpointError, ConfigError
from mote_fast.evaluation.predict import predict
from mote_fast.evaluation.protocols import Accuracy
from tests.evaluation.made_up import MadeUpLoader, failure_of, made_up_pixels, random_classes
from tests.tolerances import assert_close

SHARES = (0.0, 0.3, 0.99, 1.0)


@pytest.fixture
def released(tmp_path: Path, clip_state: dict[str, Tensor], released_head: dict[str, Tensor]) -> Path:
    """A released checkpoint whose image tower is the original's, moved far."""
    generator = torch.Generator().manual_seed(0)
    tuned = {
        name: value + 0.05 * torch.randn(value.shape, generator=generator)
        for name, value in clip_state.items()
        if name.startswith("visual.") or name == "logit_scale"
    }
    path = tmp_path / "released.pt"
    torch.save({"epoch": 1, "model_state_dict": tuned, "fusion_model_state_dict": released_head}, path)
    return path


@pytest.fixture
def folder(tmp_path: Path, released: Path, clip_file: Path) -> Path:
    """The same model as a folder."""
    mote_fast.load(released, clip=clip_file, interpolate=1.0).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", ["released", "folder"])
def test_shares_equal_loading_with_them(request: pytest.FixtureRequest, kind: str, clip_file: Path) -> None:
    """One pass gives, to the last bit, what a pass for each interpolated checkpoint gives; failures are kept."""
    checkpoint: Path = request.getfixturevalue(kind)
    model, original = load_with_original(str(checkpoint), str(clip_file), 4, "cpu")
    size = model.clip.image_size
    pixels, classes = made_up_pixels(3, size=size), random_classes(model)
    loader = MadeUpLoader(pixels, broken={1})
    found = predict_shares(InterpolatedTowers(model, original, SHARES), loader, classes)
    assert loader.yielded == [0, 2]
    released = request.getfixturevalue("released")
    for share, each in zip(SHARES, found, strict=True):
        alone = mote_fast.load(released, clip=clip_file, interpolate=share, frames=4)
        expected = predict(alone, MadeUpLoader(pixels, broken={1}), classes)
        assert torch.equal(each.running, expected.running)
        assert torch.equal(each.features, expected.features)
        assert each.failures == (failure_of(1),)
    assert not torch.equal(found[0].running, found[-1].running)


def test_another_type(released: Path, clip_file: Path) -> None:
    """Shares are mixed in float32, and then rounded as a loaded model is."""
    model, original = load_with_original(str(released), str(clip_file), 4, "cpu")
    towers = InterpolatedTowers(model, original, [0.5])
    model.to(dtype=torch.bfloat16)
    pixels = made_up_pixels(1, size=model.clip.image_size)[0].flatten(0, 1).bfloat16()
    alone = mote_fast.load(released, clip=clip_file, interpolate=0.5, dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(towers.encode_frames(pixels), alone.encode_frames(pixels))


def test_another_original_is_refused(folder: Path, tmp_path: Path, clip_state: dict[str, Tensor]) -> None:
    """A CLIP of another shape or activation is no original of the model."""
    other = mote_fast.create_model("ViT-test").clip.model.state_dict()
    torch.save(other, tmp_path / "tiny.pt")
    with pytest.raises(CheckpointError, match=r"tiny\.pt: is not the CLIP that .*model was tuned from \(preproc"):
        load_with_original(str(folder), str(tmp_path / "tiny.pt"), 4, "cpu")
    deeper = {name.replace("resblocks.1", "resblocks.2"): value for name, value in clip_state.items()} | clip_state
    torch.save(deeper, tmp_path / "deeper.pt")
    with pytest.raises(CheckpointError, match=r"deeper\.pt: .* tuned from \(visual\.transformer\.resblocks\.2"):
        load_with_original(str(folder), str(tmp_path / "deeper.pt"), 4, "cpu")
    with pytest.raises(CheckpointError, match=r"none\.pt"):
        load_with_original(str(folder), str(tmp_path / "none.pt"), 4, "cpu")
    gelu = mote_fast.create_model("ViT-test", activation="gelu")
    gelu.save(tmp_path / "gelu")
    torch.save(
        clip_state | {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77)}, tmp_path / "openai.pt"
    )
    with pytest.raises(ActivationMismatchError, match="quick_gelu"):
        load_with_original(str(tmp_path / "gelu"), str(tmp_path / "openai.pt"), 4, "cpu")


@pytest.mark.parametrize("shares", [[], [0.5], [0.0, 1.01], [-0.1, 1.0], [0.5, 0.5], [math.nan, 1.0]])
def test_bad_shares(shares: list[float]) -> None:
    """A sweep needs at least two different shares in [0, 1]."""
    with pytest.raises(ConfigError, match="two different numbers"):
        check_shares(shares)


def test_table() -> None:
    """The score is the harmonic mean; where no video could be read, cells are empty."""
    points = [
        SharePoint(0.0, Accuracy(50.0, 80.0), Accuracy(100.0, 100.0)),
        SharePoint(1.0, Accuracy(math.nan, math.nan), Accuracy(40.0, 60.0)),
    ]
    assert points[0].score == pytest.approx(2 / (1 / 50 + 1 / 100))
    lines = share_csv(points).splitlines()
    assert lines[1] == "0.0000,50.0000,80.0000,100.0000,100.0000,66.6667"
    assert lines[2] == "1.0000,,,40.0000,60.0000,"
    assert_close(torch.tensor(SharePoint(0.0, Accuracy(0.0, 0.0), Accuracy(9.0, 9.0)).score), torch.tensor(0.0))
