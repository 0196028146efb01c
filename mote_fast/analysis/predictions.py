"""One pass over a list of videos for several variants of a head: the towers run once per video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor

from mote_fast.analysis.variants import Variant
from mote_fast.data.loading.video_loader import VideoLoader
from mote_fast.evaluation.predict import Judge, LabelSet, Predictions, judge_videos, score_videos
from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.progress import Progress


def predict_variants(
    model: VideoClassifier,
    variants: Sequence[Variant],
    loader: VideoLoader,
    class_features: Tensor,
    *,
    progress: Progress | None = None,
) -> Mapping[str, Predictions]:
    """Classify every video of a loader by each variant; the merged one's predictions are those of ``predict``.

    Args:
        model: the model that encodes the frames.
        variants: the variants of its head.
        loader: a loader for evaluation.
        class_features: [C, d], class features of the candidate labels.
        progress: called with the number of videos done since the last call.

    Returns:
        The predictions of each variant, by its name.
    """
    judges = [Judge(LabelSet(class_features), partial(_judge_by_variant, variant)) for variant in variants]
    found = judge_videos(model, loader, judges, progress)
    return {variant.name: predictions for variant, predictions in zip(variants, found, strict=True)}


def _judge_by_variant(
    variant: Variant, frame_features: Tensor, class_features: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """See ``Judge.scores``."""
    del indices
    return score_videos(
        variant.features(frame_features.flatten(0, 1), class_features).float(), class_features, frame_features.shape[1]
    )
