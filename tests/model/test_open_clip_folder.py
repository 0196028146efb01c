"""Folders in open_clip's layout: plain open_clip loads them and computes the same features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

import mote_fast
from mote_fast.data import Preprocessing
from mote_fast.errors import CheckpointError, ConfigError
from tests.model.test_complete_folders import BERT_TOKENIZER, BERT_TOWER, TEXT, write_published
from tests.tolerances import assert_close

LABELS = ["a photo of a cello", "video."]


@torch.no_grad()
def assert_same_features(folder: Path, model: Any) -> None:
    """Of frames and texts, through open_clip's own factory, and its own preprocessing values."""
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(LABELS)
    pixels = torch.randn(3, 3, model.clip.image_size, model.clip.image_size)
    theirs.eval()
    assert torch.equal(tokens, model.clip.tokenizer(LABELS))
    assert_close(model.clip.encode_frames(pixels), theirs.encode_image(pixels))
    assert_close(model.clip.encode_tokens(tokens), theirs.encode_text(tokens))
    own = model.clip.config.preprocessing
    stated = open_clip.get_model_preprocess_cfg(theirs)
    assert (tuple(stated["mean"]), tuple(stated["std"])) == (own.mean, own.std)
    assert (stated["resize_mode"], stated["interpolation"]) == (own.resize_mode, own.interpolation)
    assert preprocess is not None


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_open_clip_computes_the_same(activation: Any, tmp_path: Path) -> None:
    """With either activation, and a preprocessing that is not OpenAI's; our own loader reads it back too."""
    torch.manual_seed(0)
    made = mote_fast.create_model("ViT-test", activation=activation)
    state = tmp_path / "towers.pt"
    torch.save(made.clip.model.state_dict(), state)
    other = Preprocessing(64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash", "bilinear")
    model = mote_fast.create_model("ViT-test", clip_pretrained=state, activation=activation, preprocessing=other)
    model.save(tmp_path / "towers", format="open_clip")
    assert_same_features(tmp_path / "towers", model)
    back = mote_fast.create_model(f"local-dir:{tmp_path / 'towers'}", header="mean", heads=1)
    assert (back.clip.config.activation, back.clip.config.preprocessing) == (activation, other)
    assert all(torch.equal(value, back.clip.state_dict()[name]) for name, value in model.clip.state_dict().items())


def test_a_tokenizer_of_transformers_is_in_it(tmp_path: Path) -> None:
    """Its files lie beside the weights, where open_clip looks for them."""
    pytest.importorskip("transformers", reason="needs mote_fast[text]")
    source = write_published(tmp_path / "published", TEXT | BERT_TOKENIZER)
    model = mote_fast.create_model(f"local-dir:{source}", layers=1, experts=2)
    model.save(tmp_path / "towers", format="open_clip")
    source.rename(tmp_path / "elsewhere")
    assert_same_features(tmp_path / "towers", model)


def test_what_open_clip_has_no_place_for(tmp_path: Path, tiny: Any) -> None:
    """Small tokenizers and text towers of transformers are refused, and so is a format that does not exist."""
    with pytest.raises(ConfigError, match="small text tower"):
        mote_fast.load("tiny").save(tmp_path / "towers", format="open_clip")
    tiny.clip.config.model["text_cfg"] = BERT_TOWER
    with pytest.raises(ConfigError, match="from the hub"):
        tiny.save(tmp_path / "towers", format="open_clip")
    with pytest.raises(ConfigError, match="format"):
        tiny.save(tmp_path / "towers", format="timm")
    assert not (tmp_path / "towers").exists()


def test_only_such_a_folder_is_replaced(tmp_path: Path, tiny: Any) -> None:
    """A model of the default format, and anything else, stays."""
    tiny.save(tmp_path / "towers", format="open_clip")
    tiny.save(tmp_path / "towers", format="open_clip")
    with pytest.raises(CheckpointError, match="something else"):
        tiny.save(tmp_path / "towers")
    tiny.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="something else"):
        tiny.save(tmp_path / "model", format="open_clip")
    with pytest.raises(CheckpointError, match="create_model"):
        mote_fast.load(tmp_path / "towers")
