"""One pass over a list of videos for several variants of a head: the towers run once per video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.analysis.variants import Variant
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.video_loader import VideoLoader
from mote_fast.evaluation.predict import Predictions, Progress, encode_batch
from mote_fast.head.scores import pool_views, view_scores
from mote_fast.head.video_head import cosine_logits
from mote_fast.model.classifier import VideoClassifier


def predict_variants(
    model: VideoClassifier,
    variants: Sequence[Variant],
    loader: VideoLoader,
    classes: Tensor,
    *,
    progress: Progress | None = None,
) -> Mapping[str, Predictions]:
    """Judge every video of a loader by each variant; the merged one's predictions are those of ``predict``.

    Args:
        model: encodes the frames.
        variants: what follows them.
        loader: made for evaluation, of one process.
        classes: [C, d], class features of the labels to choose from.
        progress: called with the number of videos done since the last call.

    Returns:
        The predictions of each variant, by its name.
    """
    running: dict[str, list[Tensor]] = {variant.name: [] for variant in variants}
    pooled: dict[str, list[Tensor]] = {variant.name: [] for variant in variants}
    indices, labels = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
    failures: list[Failure] = []
    for batch in loader.epoch(0):
        failures.extend(batch.failures)
        if len(batch.indices):
            indices.append(batch.indices)
            labels.append(batch.labels.cpu())
            # Not around the loader's own work: what it allocated in inference mode could not be written to afterwards.
            with torch.inference_mode():
                encoded = encode_batch(model, batch)
                views, frames = encoded.shape[1], encoded.flatten(0, 1)
                targets = classes.to(frames)
                for variant in variants:
                    features = variant.features(frames, targets).float()
                    cosines = cosine_logits(features, targets.float())
                    running[variant.name].append(view_scores(cosines.double(), views).cpu())
                    pooled[variant.name].append(pool_views(features.mean(1).unflatten(0, (-1, views))).cpu())
        if progress is not None:
            progress(len(batch.indices) + len(batch.failures))
    unit_classes = F.normalize(classes.detach().float().cpu(), dim=-1)
    return {
        variant.name: Predictions(
            torch.cat(indices),
            torch.cat(labels),
            torch.cat([torch.empty(0, len(classes), dtype=torch.float64), *running[variant.name]]),
            torch.cat([torch.empty(0, classes.shape[1]), *pooled[variant.name]]),
            unit_classes,
            tuple(failures),
        )
        for variant in variants
    }
