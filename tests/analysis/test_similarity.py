"""Similarity of experts against cosines computed one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mote_fast.analysis.similarity import affinity, expert_similarity, similarity_csv
from mote_fast.analysis.variants import expert_variants
from mote_fast.errors import ConfigError
from tests.evaluation.made_up import MadeUpLoader, made_up_pixels, small_model
from tests.tolerances import assert_close


@pytest.mark.heavy
@given(variants=st.integers(1, 5), videos=st.integers(1, 6), seed=st.integers(0, 1000))
def test_affinity(variants: int, videos: int, seed: int) -> None:
    """The mean over videos of the cosine of every pair; symmetric, ones on the diagonal."""
    features = torch.randn(variants, videos, 8, generator=torch.Generator().manual_seed(seed))
    found = affinity(features)
    for row in range(variants):
        for column in range(variants):
            cosines = F.cosine_similarity(features[row].double(), features[column].double(), dim=-1)
            assert found[row, column].item() == pytest.approx(cosines.mean().item(), abs=1e-12)
    assert_close(found, found.t(), "float64")
    assert_close(found.diagonal(), torch.ones(variants), "float64")


def test_against_features_of_each_video() -> None:
    """Both matrices, of videos with two views, one of which could not be read, by loops over videos and experts."""
    model, pixels = small_model(), made_up_pixels(5, views=2)
    variants = expert_variants(model.head)
    done: list[int] = []
    loader = MadeUpLoader(pixels, broken=[1])
    found = expert_similarity(model, variants, loader, progress=lambda count: done.append(count))
    assert (found.videos, len(found.failures), sum(done)) == (4, 1, 5)

    def pooled(features: torch.Tensor) -> torch.Tensor:
        return F.normalize(features.mean(1), dim=-1).mean(0)

    output = torch.zeros(len(variants), len(variants), dtype=torch.float64)
    temporal = torch.zeros_like(output)
    with torch.no_grad():
        for video in pixels[[0, 2, 3, 4]]:
            frames = model.clip.encode_frames(video.flatten(0, 1)).unflatten(0, (2, -1))
            outputs = [model.head.features(frames, expert=expert) for expert in (None, *range(model.head.experts))]
            for row, one in enumerate(outputs):
                for column, other in enumerate(outputs):
                    output[row, column] += F.cosine_similarity(pooled(one), pooled(other), dim=0) / 4
                    parts = pooled(one - frames), pooled(other - frames)
                    temporal[row, column] += F.cosine_similarity(*parts, dim=0) / 4
    assert_close(found.output, output)
    assert_close(found.temporal, temporal)
    assert (found.output - torch.eye(len(variants))).abs().max() < 0.99
    lines = similarity_csv(found).splitlines()
    assert lines[0] == "variant,other,output,temporal"
    assert lines[1] == "merged,merged,1.0000,1.0000"
    assert lines[2] == f"merged,expert 0,{output[0, 1]:.4f},{temporal[0, 1]:.4f}"
    assert len(lines) == 1 + len(variants) ** 2


def test_nothing_readable() -> None:
    """Without a readable video there is no mean; the error gives the first reason."""
    model = small_model()
    with pytest.raises(ConfigError, match=r"none of the 2 videos .* made to fail"):
        expert_similarity(model, expert_variants(model.head), MadeUpLoader(made_up_pixels(2), broken=[0, 1]))
