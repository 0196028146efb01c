"""One pass for all variants: the predictions that a pass for each would give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.analysis.predictions import predict_variants
from mote_fast.analysis.variants import MERGED, TOWER, expert_variants, tower_alone
from mote_fast.evaluation.predict import predict
from mote_fast.head.scores import view_scores
from tests.evaluation.made_up import MadeUpLoader, failure_of, made_up_pixels, random_classes, small_model
from tests.tolerances import assert_close

VIDEOS, VIEWS, FRAMES = 5, 2, 4


def test_against_a_pass_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged is ``predict``, experts and the tower alone are as computed directly, and every frame is encoded once."""
    model = small_model(FRAMES)
    classes = random_classes(model)
    # Random classes are far from one another: at the paper's gamma modulation would leave nothing of the experts.
    model.head.set_inference(modulation_gamma=5.0)
    pixels = made_up_pixels(VIDEOS, VIEWS, FRAMES)
    alone = predict(model, MadeUpLoader(pixels, broken=[3]), classes)
    encoded: list[int] = []
    encode = model.clip.encode_frames

    def counted(part: Tensor, **_: bool) -> Tensor:
        encoded.append(len(part))
        return encode(part)

    monkeypatch.setattr(model.clip, "encode_frames", counted)
    variants = [*expert_variants(model.head), tower_alone(model.head)]
    done: list[int] = []
    found = predict_variants(
        model, variants, MadeUpLoader(pixels, broken=[3]), classes, progress=lambda count: done.append(count)
    )
    assert (sum(encoded), sum(done)) == ((VIDEOS - 1) * VIEWS * FRAMES, VIDEOS)
    assert list(found) == [variant.name for variant in variants]
    for each in found.values():
        assert each.indices.tolist() == [0, 1, 2, 4]
        assert each.labels.tolist() == alone.labels.tolist()
        assert each.failures == (failure_of(3),)
    assert_close(found[MERGED].running, alone.running, "equivalent")
    assert_close(found[MERGED].features, alone.features, "equivalent")
    assert_close(found[MERGED].class_features, alone.class_features, "exact")

    with torch.no_grad():
        frames = encode(pixels[[0, 1, 2, 4]].flatten(0, 2)).unflatten(0, (-1, FRAMES))
        direct = {
            f"expert {number}": model.head.features(frames, classes, expert=number)
            for number in range(model.head.experts)
        }
    direct[TOWER] = frames
    for name, features in direct.items():
        cosines = F.cosine_similarity(features.mean(1)[:, None], classes[None], dim=-1)
        assert_close(found[name].running, view_scores(cosines.double(), VIEWS), "equivalent")
    assert not torch.allclose(found["expert 0"].features, found["expert 1"].features, atol=1e-3)


def test_nothing_readable() -> None:
    """Predictions of no videos, and every failure."""
    model = small_model()
    loader = MadeUpLoader(made_up_pixels(2), broken=[0, 1])
    found = predict_variants(model, expert_variants(model.head), loader, random_classes(model))
    assert all(each.running.shape == (0, 7) and len(each.failures) == 2 for each in found.values())
