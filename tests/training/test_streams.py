"""The passes of training, where the loss does not see the difference."""

from __future__ import annotations

import torch

from mote_fast import VideoHead
from mote_fast.head.head_config import HeadConfig
from mote_fast.training.streams import every_expert_features
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
