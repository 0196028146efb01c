"""Similarity between the features of the merged model and of each expert (paper Figure 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.analysis.tables import to_csv
from mote_fast.analysis.variants import Variant
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.video_loader import VideoLoader
from mote_fast.errors import ConfigError
from mote_fast.evaluation.predict import encode_videos
from mote_fast.head.scores import pool_views
from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.checks import check_finite
from mote_fast.runtime.progress import Progress


@dataclass(frozen=True)
class Similarity:
    """Mean cosines between the features of K variants.

    Attributes:
        variants: the names.
        output: float64 [K, K], of the video features that are compared with classes, temporal plus frame features.
        temporal: float64 [K, K], of the temporal features alone, which the layers add to the frames.
        videos: number of videos in the mean.
        failures: videos that could not be read.
    """

    variants: Sequence[str]
    output: Tensor
    temporal: Tensor
    videos: int
    failures: Sequence[Failure]


def affinity(features: Tensor) -> Tensor:
    """Return the cosine of every two variants, averaged over the videos.

    Args:
        features: [K, N, d], features of K variants for N videos.

    Returns:
        float64 [K, K], symmetric, ones on the diagonal.
    """
    unit = F.normalize(features.double(), dim=-1)
    return torch.einsum("knd,lnd->kl", unit, unit) / features.shape[1]


def expert_similarity(
    model: VideoClassifier, variants: Sequence[Variant], loader: VideoLoader, *, progress: Progress | None = None
) -> Similarity:
    """Compare the variants' features of every video of a loader, without a label set and hence without modulation.

    A video's feature is that of ``VideoClassifier.embed``: averaged over frames, normalised, averaged over views.

    Args:
        model: the model that encodes the frames.
        variants: at least one variant of one head with layers.
        loader: a loader for evaluation, of one process.
        progress: called with the number of videos done since the last call.

    Raises:
        ConfigError: no video could be read.
        NotFiniteError: features are NaN or infinite.
    """
    outputs: list[Tensor] = []
    temporals: list[Tensor] = []
    failures: list[Failure] = []
    for _, encoded in encode_videos(model, loader, failures, progress):
        views, frame_features = encoded.shape[1], encoded.flatten(0, 1)
        with torch.inference_mode():
            features = torch.stack([variant.features(frame_features, None) for variant in variants])
        check_finite(features, "the experts' features")
        outputs.append(video_features(features, views))
        temporals.append(video_features(features - frame_features, views))
    if not outputs:
        raise ConfigError(f"none of the {len(failures)} videos could be read; the first: {failures[0].reason}")
    output, temporal = torch.cat(outputs, dim=1), torch.cat(temporals, dim=1)
    names = [variant.name for variant in variants]
    return Similarity(names, affinity(output), affinity(temporal), output.shape[1], failures)


def similarity_csv(found: Similarity) -> str:
    """Return both matrices in long form, one line for each pair of variants."""
    pairs = [(row, column) for row in range(len(found.variants)) for column in range(len(found.variants))]
    return to_csv(
        ["variant", "other", "output", "temporal"],
        (
            [found.variants[i], found.variants[j], float(found.output[i, j]), float(found.temporal[i, j])]
            for i, j in pairs
        ),
    )


def video_features(features: Tensor, views: int) -> Tensor:
    """Average the features [K, B * V, T, d] of K variants over frames and views: float32 [K, B, d], on the CPU."""
    pooled = [pool_views(each.float().mean(1).unflatten(0, (-1, views))) for each in features]
    return torch.stack(pooled).cpu()
