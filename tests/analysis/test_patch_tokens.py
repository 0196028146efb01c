"""Patch features: the untrimmed pass against the library's own and against a loop over the blocks."""

from __future__ import annotations

import pytest
import torch

from mote_fast.analysis.patch_tokens import encode_patches
from mote_fast.clip.clip_config import ClipConfig
from mote_fast.clip.pretrained import build_towers
from mote_fast.clip.towers import ClipTowers
from mote_fast.errors import ConfigError
from tests.tolerances import assert_close

VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}


def towers_with(**vision: object) -> ClipTowers:
    torch.manual_seed(0)
    return build_towers(
        ClipConfig.of_clip({"embed_dim": 48, "quick_gelu": True, "vision_cfg": VISION | vision, "text_cfg": TEXT})
    )


@torch.no_grad()
def test_against_a_loop_over_the_blocks() -> None:
    """Frame features are ``encode_frames``; patches keep their place, and are projected as the class token is."""
    towers = towers_with()
    visual = towers.model.visual
    # Norms that do nothing by default must show when they are left out.
    torch.nn.init.normal_(visual.ln_post.weight)
    torch.nn.init.normal_(visual.ln_post.bias)
    pixels = torch.randn(3, 3, 32, 32)
    found = encode_patches(towers, pixels)
    assert_close(found.frames, towers.encode_frames(pixels))
    patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat((visual.class_embedding.expand(3, 1, -1), patches), dim=1) + visual.positional_embedding
    x = visual.ln_pre(x)
    for block in visual.transformer.resblocks:
        x = block(x)
    expected = visual.ln_post(x) @ visual.proj
    assert_close(found.frames, expected[:, 0])
    assert_close(found.patches, expected[:, 1:].unflatten(1, (4, 4)))


def test_towers_without_a_class_token() -> None:
    """A tower with another pooling has no such patches and raises a clear error."""
    with pytest.raises(ConfigError, match="ViT-B-16"):
        encode_patches(towers_with(pool_type="avg"), torch.randn(1, 3, 32, 32))
