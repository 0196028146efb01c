"""Modulation against eq. (14) and eq. (15) written out, one video at a time."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mote_fast.head.modulation import modulation_factor


@given(classes=st.integers(1, 12), tuned=st.integers(1, 12), batch=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_factor_matches_the_spec(classes: int, tuned: int, batch: int, seed: int) -> None:
    """Any label set sizes, fewer than K names included (where the official code fails)."""
    generator = torch.Generator().manual_seed(seed)
    # A shared direction keeps the similarities high enough for the exponential to be worth comparing.
    common = torch.randn(8, generator=generator)
    g = F.normalize(torch.randn(classes, 8, generator=generator) + 2 * common, dim=-1)
    s = F.normalize(torch.randn(tuned, 8, generator=generator) + 2 * common, dim=-1)
    frames = torch.randn(batch, 3, 8, generator=generator) + common
    found = modulation_factor(frames, g, s, gamma=0.5)
    for video, factor in zip(frames, found, strict=True):
        u = F.normalize(video.mean(0), dim=0)
        best_g = sorted(g, key=lambda row: -float(row @ u))[:5]
        best_s = sorted(s, key=lambda row: -float(row @ u))[:5]
        m = sum(max(float(a @ b) for b in best_s) for a in best_g) / len(best_g)
        assert math.isclose(float(factor), math.exp(-(1 - m) / 0.5), rel_tol=1e-4)


def test_familiar_classes_leave_features_whole() -> None:
    """With the same label set on both sides the factor is 1: the temporal features are trusted."""
    classes = F.normalize(torch.randn(6, 16), dim=-1)
    factor = modulation_factor(torch.randn(2, 4, 16), classes, classes)
    assert torch.allclose(factor, torch.ones(2), atol=1e-4)
