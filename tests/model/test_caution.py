"""Which models are not trained for what they rank, and the warning about it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import mote_fast
from mote_fast.errors import UntrainedWarning


def with_trained_towers(**options: object) -> mote_fast.VideoClassifier:
    """A model whose towers are not as they were drawn."""
    model = mote_fast.create_model("ViT-test", **options)  # pyright: ignore[reportArgumentType]
    for part in model.clip.model.modules():
        if isinstance(part, nn.LayerNorm):
            nn.init.normal_(part.weight, 1.0, 0.1)
    return model


def test_what_is_untrained(tmp_path: Path) -> None:
    """Random towers, a fresh head and the shipped model; also after saving and folding."""
    fresh = with_trained_towers()
    fresh.save(tmp_path / "fresh")
    for model in (fresh, fresh.fold(), mote_fast.load(tmp_path / "fresh"), with_trained_towers(header="plain")):
        assert "temporal head" in (model.caution or "")
    assert "random weights" in (mote_fast.create_model("ViT-test", header="mean").caution or "")
    assert "drawn videos" in (mote_fast.load("tiny").fold().caution or "")
    assert with_trained_towers(header="mean").caution is None


def test_a_step_of_training_ends_it() -> None:
    """Nobody has to say that a model is trained now."""
    model = with_trained_towers()
    optimizer = mote_fast.head_optimizer(model.head, lr=5e-5)
    features, classes = torch.randn(2, 8, 64), torch.randn(3, 64)
    loss = mote_fast.training_loss(model.head, features, classes, torch.tensor([0, 2]), logit_scale=100.0)
    loss.total.backward()
    optimizer.step()
    assert model.caution is None


def test_the_warning_names_the_users_line(moving_video: Path) -> None:
    """Every call that ranks or embeds warns, where the caller stands; a trained model is silent."""
    model, labels = mote_fast.create_model("ViT-test"), ["archery", "juggling balls"]
    classes = model.class_features(labels)
    calls = (
        lambda: model.classify(moving_video, labels),
        lambda: model.classify([moving_video], labels),
        lambda: model.scores(moving_video, classes),
        lambda: model.embed(moving_video),
    )
    for call in calls:
        with pytest.warns(UntrainedWarning, match="random weights") as caught:
            call()
        assert {warning.filename for warning in caught} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_trained_towers(header="mean").classify(moving_video, labels)
