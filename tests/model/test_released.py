"""The released key layout: a lossless round trip, and errors that name the key."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mote_fast import VideoHead
from mote_fast.errors import CheckpointError
from mote_fast.head.head_config import HeadConfig
from mote_fast.model.released import head_from_released, head_to_released


def test_golden_head_round_trip(released_head: dict[str, Tensor]) -> None:
    """Released -> ours -> released gives the same names and the same bits."""
    back = head_to_released(head_from_released(released_head, 2))
    assert back.keys() == released_head.keys()
    assert all(torch.equal(back[name], value) for name, value in released_head.items())


@given(
    layers=st.integers(1, 3),
    experts=st.integers(0, 5),
    header=st.sampled_from(["mote", "plain", "mean"]),
    classes=st.integers(1, 4),
)
def test_our_head_round_trip(layers: int, experts: int, header: Any, classes: int) -> None:
    """Ours -> released -> ours gives the same head in every variant, fusion weights included."""
    head = VideoHead(HeadConfig(16, 2, layers, experts, header=header), torch.randn(classes, 16))
    for name, buffer in head.named_buffers():
        if name.endswith("fusion"):
            buffer.normal_()
    back = head_from_released(head_to_released(head), 2)
    ours, theirs = head.state_dict(), back.state_dict()
    assert back.config == head.config
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


@pytest.mark.parametrize("design", ["up_down", "up", "down"])
def test_other_designs_are_refused_until_folded(design: Any) -> None:
    """The layout holds whole FFNs only; a head of another design fits once it is folded."""
    head = VideoHead(HeadConfig(16, 2, 2, 3, expert_design=design))
    with pytest.raises(CheckpointError, match=f"expert_design='{design}'"):
        head_to_released(head)
    frames, classes = torch.randn(2, 4, 16), torch.randn(5, 16)
    back = head_from_released(head_to_released(head.fold()), 2)
    assert torch.equal(back(frames, classes), head.fold()(frames, classes))


def test_round_trip_shares_no_memory(released_head: dict[str, Tensor]) -> None:
    """Training the head must not change the dictionary it came from, nor the one it gave."""
    before = released_head["transformer.resblocks.0.mlp.fc_up.1.weight"].clone()
    head = head_from_released(released_head, 2)
    given_away = head_to_released(head)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(1)
    assert torch.equal(released_head["transformer.resblocks.0.mlp.fc_up.1.weight"], before)
    assert torch.equal(given_away["transformer.resblocks.0.mlp.fc_up.1.weight"], before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("transformer.resblocks.1.ln_2.bias"), "transformer.resblocks.1.ln_2.bias"),
        (lambda s: s.pop("frame_position_embeddings.weight"), "frame_position_embeddings.weight"),
        (lambda s: s.pop("transformer.resblocks.0.mlp.fc_dn.3.bias"), "fc_dn.3.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra"),
        (lambda s: s.update({"transformer.resblocks.5.ln_1.bias": torch.zeros(64)}), "consecutive"),
        (lambda s: s.update({"transformer.resblocks.0.attn.in_proj_bias": torch.zeros(3)}), "in_proj_bias"),
        (lambda s: s.update(spe_cls_feature=torch.zeros(13, 65)), "train_class_features"),
        (lambda s: s.clear(), "released head"),
    ],
)
def test_defects_are_named(released_head: dict[str, Tensor], change: Any, message: str) -> None:
    """A key that is missing, unknown or of the wrong shape is refused by name."""
    state = dict(released_head)
    change(state)
    with pytest.raises(CheckpointError, match=message):
        head_from_released(state, 2)
