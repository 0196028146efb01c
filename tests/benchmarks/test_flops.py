"""Counts of operations: against PyTorch's counter on real towers, and against the paper's figure."""

from __future__ import annotations

import flops
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import mote_fast


def test_image_tower_against_the_counter() -> None:
    """The formula counts what the trimmed tower does; attention's small products apart, which the counter may miss."""
    towers = mote_fast.create_model("ViT-test").clip
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        towers.run_vision_tower(torch.zeros(3, 3, 64, 64))
    counted = counter.get_total_flops()
    assert counted == pytest.approx(flops.image_tower(3, 64, 16, 64, 2, 64, trimmed=True), rel=0.06)


def test_a_view_of_the_paper() -> None:
    """ViT-B/16 with its head: 141 GFLOPs a view of 8 frames in the paper, which counts a product and a sum as one."""
    towers = flops.image_tower(8, 224, 16, 768, 12, 512, trimmed=False)
    assert (towers + flops.head(1, 8, 512, 4, 400)) / 2e9 == pytest.approx(141, rel=0.01)


def test_trimming_saves_seven_percent() -> None:
    """The last block for one token: about 7% of the work on ViT-B/16."""
    whole, trimmed = (flops.image_tower(1, 224, 16, 768, 12, 512, trimmed=trimmed) for trimmed in (False, True))
    assert 1 - trimmed / whole == pytest.approx(0.065, abs=0.01)
