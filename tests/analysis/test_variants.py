"""Each variant of a head computes what its name says, for every expert design."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from mote_fast.analysis.variants import MERGED, TOWER, expert_variants, tower_alone
from mote_fast.errors import ConfigError
from mote_fast.head.expert_designs import ExpertDesign, ProjectionExperts
from mote_fast.head.experts import TemporalExperts, run_expert
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.video_head import VideoHead
from mote_fast.kernels.reference import Expert, unpack_expert
from tests.tolerances import assert_close

WIDTH, EXPERTS = 16, 3


def head_of(design: ExpertDesign = "ffn") -> VideoHead:
    torch.manual_seed(0)
    head = VideoHead(HeadConfig(WIDTH, 2, 2, EXPERTS, expert_design=design))
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    head.set_train_class_features(torch.randn(6, WIDTH))
    return head


def one_expert(mixture: object, expert: int) -> Expert:
    """The weights of one expert, straight from the parameters."""
    if isinstance(mixture, TemporalExperts):
        return unpack_expert(mixture.weight[expert], WIDTH)
    assert isinstance(mixture, ProjectionExperts)
    up, down = expert % len(mixture.up_weight), expert % len(mixture.down_weight)
    return Expert(mixture.up_weight[up], mixture.up_bias[up], mixture.down_weight[down], mixture.down_bias[down])


def through_one_expert(head: VideoHead, frames: Tensor, expert: int) -> Tensor:
    x = frames + head.frame_positions[: frames.shape[1]]
    for block in head.temporal_blocks():
        x = block.attend(x)
        x = x + run_expert(block.ln_2(x), one_expert(block.mlp, expert))
    return x + frames


@torch.no_grad()
@pytest.mark.parametrize("design", get_args(ExpertDesign))
def test_variants_by_hand(design: ExpertDesign) -> None:
    """Merged is the head's own inference, modulation included; an expert alone is that expert in every layer."""
    head = head_of(design)
    frames, classes = torch.randn(2, 4, WIDTH), torch.randn(7, WIDTH)
    merged, *experts = expert_variants(head)
    assert [each.name for each in (merged, *experts)] == [MERGED, "expert 0", "expert 1", "expert 2"]
    assert_close(merged.features(frames, classes), head.features(frames, classes), "equivalent")
    for number, variant in enumerate(experts):
        alone = through_one_expert(head, frames, number)
        assert_close(variant.features(frames, None), alone, "equivalent")
        modulated = head.features(frames, classes, expert=number)
        assert_close(variant.features(frames, classes), modulated, "exact")
        assert not torch.allclose(modulated, alone)


def test_without_temporal_layers_features_are_the_frames() -> None:
    """The tower alone does not change the frame features, for any classes."""
    variant = tower_alone(head_of())
    frames = torch.randn(2, 4, WIDTH)
    assert variant.name == TOWER
    assert_close(variant.features(frames, torch.randn(7, WIDTH)), frames, "exact")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (VideoHead(HeadConfig(WIDTH, 2, 2, 0, header="plain")), "has 1 .*'plain'"),
        (VideoHead(HeadConfig(WIDTH, 2, 0, 0, header="mean")), "has 0 .*'mean'"),
        (VideoHead(HeadConfig(WIDTH, 2, 2, 1)), "has 1"),
        (head_of().fold(), "folded"),
        (VideoHead(HeadConfig(WIDTH, 2, 2, 3, aggregation="ensemble")), "'ensemble'"),
        (VideoHead(HeadConfig(WIDTH, 2, 2, 3, aggregation="random")), "'random'"),
    ],
)
def test_heads_without_experts_to_compare(head: VideoHead, message: str) -> None:
    """Baselines, folded heads and heads that do not merge are refused with the reason."""
    with pytest.raises(ConfigError, match=message):
        expert_variants(head)
