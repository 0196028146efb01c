"""The towers: exact against open_clip's own forward, for every shortcut they take."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mote_fast.clip import load_towers
from mote_fast.clip.clip_config import ClipConfig
from mote_fast.clip.pretrained import build_towers
from mote_fast.clip.towers import ClipTowers
from tests.tolerances import assert_close

VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}


def small(**changes: object) -> ClipTowers:
    torch.manual_seed(0)
    model = {"embed_dim": 48, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT} | changes
    return build_towers(ClipConfig.of_clip(model))


@pytest.fixture(scope="module")
def towers() -> ClipTowers:
    return small()


@torch.no_grad()
def test_frames_match_open_clip(towers: ClipTowers) -> None:
    """Trimming the last block to the class token changes nothing."""
    pixels = torch.randn(5, 3, 32, 32)
    assert towers.is_plain_vision_tower
    assert_close(towers.encode_frames(pixels), towers.model.encode_image(pixels))


def test_frame_gradients_match_open_clip(towers: ClipTowers) -> None:
    """The trimmed block trains like the whole one: equal gradients of every parameter that matters."""
    pixels = torch.randn(2, 3, 32, 32)
    visual = list(towers.model.visual.parameters())
    ours = torch.autograd.grad(towers.encode_frames(pixels).square().sum(), visual)
    theirs = torch.autograd.grad(towers.model.encode_image(pixels).square().sum(), visual)
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine, other)


@torch.no_grad()
@settings(max_examples=15)
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=6))
def test_short_context_is_exact(towers: ClipTowers, texts: list[str]) -> None:
    """Any strings, encoded at the length they need, equal all 77 positions."""
    tokens = towers.tokenizer(texts)
    assert_close(towers.encode_tokens(tokens), towers.model.encode_text(tokens))


@torch.no_grad()
@settings(max_examples=15)
@given(texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4), length=st.integers(1, 12))
def test_shared_prefix_is_exact(towers: ClipTowers, texts: list[str], length: int) -> None:
    """Running the first tokens once and attending to their keys and values equals running the whole prompt."""
    tokens = towers.tokenizer([f"a photo of a person doing {text}." for text in texts])
    ends = towers.end_positions(tokens)
    length = min(length, int(ends.min()))
    past = towers.prefix_keys_values(tokens[:, :length])
    suffixes = tokens[:, length : int(ends.max()) + 1]
    assert_close(towers.encode_suffixes(suffixes, ends - length, past, length), towers.model.encode_text(tokens))


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"custom_text": True},
        {"vision_cfg": VISION | {"pool_type": "avg"}},
        {"vision_cfg": VISION | {"ls_init_value": 0.1}},
        {"text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last"}, "custom_text": True},
        {"text_cfg": TEXT | {"context_length": 76, "embed_cls": True}, "custom_text": True},
        {"vision_cfg": VISION | {"block_type": "custom", "scale_heads": True}},
    ],
)
def test_other_architectures_match_open_clip(changes: dict[str, object]) -> None:
    """Architectures that the library does not support itself run through open_clip and give its features."""
    other = small(**changes)
    pixels, tokens = torch.randn(2, 3, 32, 32), other.tokenizer(["archery", "playing the cello"])
    assert_close(other.encode_frames(pixels), other.model.encode_image(pixels))
    assert_close(other.encode_tokens(tokens), other.model.encode_text(tokens))


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize("name", ["coca_ViT-B-32", "RN50", "EVA02-B-16"])
def test_named_foreign_architectures_run(name: str) -> None:
    """Other families of open_clip give features of the configured width."""
    towers = load_towers(name)
    assert not towers.is_plain_vision_tower
    size = towers.image_size
    assert towers.encode_frames(torch.randn(1, 3, size, size)).shape == (1, towers.embed_dim)
    assert towers.encode_tokens(towers.tokenizer(["archery"])).shape == (1, towers.embed_dim)


@pytest.mark.heavy
def test_fingerprint_follows_the_text_tower_only(clip_file: Path) -> None:
    """Equal weights share a fingerprint; a change in the text tower makes another, one in the image tower does not."""
    one, two = load_towers(None, clip_file), load_towers(None, clip_file)
    original = one.text_fingerprint()
    assert original == two.text_fingerprint()
    with torch.no_grad():
        one.model.visual.conv1.weight.add_(1)
        assert one.text_fingerprint() == original
        one.model.ln_final.bias.add_(1)
    assert one.text_fingerprint() != original
    assert two.half().text_fingerprint() != original


def test_tokenizer_is_clips() -> None:
    """Towers without an open_clip name use the tokenizer that CLIP was trained with."""
    texts = ["Playing  the Cello", "ça va?", "日本"]
    assert torch.equal(small().tokenizer(texts), open_clip.tokenize(texts))
