"""The passes of training, for properties that the loss does not show."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mote_fast import VideoHead
from mote_fast.errors import ConfigError
from mote_fast.head.experts import merge_weights
from mote_fast.head.head_config import HeadConfig
from mote_fast.training.streams import every_expert_features, stream_features
from tests.tolerances import assert_close


@torch.no_grad()
def test_every_expert_comes_in_order() -> None:
    """Rows [e * B, (e + 1) * B) are expert e's features of the whole batch, which inference gives alone too."""
    torch.manual_seed(0)
    head = VideoHead(HeadConfig(16, 2, 2, 3))
    torch.nn.init.normal_(head.temporal_blocks()[0].mlp.weight, std=0.3)
    frames = torch.randn(4, 5, 16)
    for expert, features in enumerate(every_expert_features(head, frames).chunk(3)):
        assert_close(features, head.features(frames, expert=expert))


@pytest.mark.parametrize("design", ["ffn", "up_down", "up", "down"])
def test_streams_equal_two_separate_passes(design: Any) -> None:
    """Sharing the first attention and batching the others changes no value: each stream alone gives the same."""
    torch.manual_seed(0)
    head, frames = VideoHead(HeadConfig(16, 2, 3, 3, expert_design=design)), torch.randn(3, 5, 16)
    experts, temperatures = [0, 2, 1], [-0.6, 2.4, float("inf")]
    found_routed, found_merged = stream_features(head, frames, experts, temperatures, down_experts=experts)
    routed = merged = frames + head.frame_positions[: frames.shape[1]]
    for block, expert, temperature in zip(head.blocks, experts, temperatures, strict=True):
        routed, merged = block.attend(routed), block.attend(merged)
        weights = merge_weights(3, temperature)
        routed = routed + block.mlp.pair(block.ln_2(routed), block.ln_2(routed), expert, weights)[0]
        merged = merged + block.mlp.pair(block.ln_2(merged), block.ln_2(merged), expert, weights)[1]
    assert_close(found_routed, routed + frames)
    assert_close(found_merged, merged + frames)


def test_draws_must_fit_the_head() -> None:
    """One expert that exists, and one temperature, for each layer."""
    head, frames = VideoHead(HeadConfig(16, 2, 2, 3)), torch.randn(2, 5, 16)
    with pytest.raises(ConfigError, match="one entry for each"):
        stream_features(head, frames, [0], [1.2, 1.2])
    with pytest.raises(ConfigError, match=r"0\.\.2"):
        stream_features(head, frames, [0, 3], [1.2, 1.2])
