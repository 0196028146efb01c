"""The training objective of the paper (eq. (12)) and of its ablations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.errors import ShapeError
from mote_fast.head.video_head import VideoHead, cosine_logits
from mote_fast.training.method import Draws, TrainingMethod
from mote_fast.training.streams import every_expert_features, merged_features, routed_features, stream_features

PAPER_METHOD = TrainingMethod()


@dataclass(frozen=True)
class Loss:
    """The objective and its parts, each a scalar; ``total`` is the one to differentiate."""

    total: Tensor
    routed: Tensor
    merged: Tensor
    mse: Tensor


def training_loss(
    head: VideoHead,
    frame_features: Tensor,
    class_features: Tensor,
    labels: Tensor,
    logit_scale: Tensor | float,
    method: TrainingMethod = PAPER_METHOD,
    draws: Draws | None = None,
    generator: torch.Generator | None = None,
) -> Loss:
    """The objective of one step for any head and method; the default method's is eq. (12).

    A head with one FFN per layer, or none (CLIP-Mean, whose image tower can still be trained), has no mixture to route
    or merge: its loss is cross-entropy alone. Parts that a method leaves out are zero.

    Args:
        head: the head whose streams are run.
        frame_features: [B, T, d], frame features.
        class_features: [C, d], features of the training label set.
        labels: int64 [B], class indices; for ``method.loss`` "bce" float or bool [B, C], 1 for the classes of a video.
        logit_scale: the factor itself, ``exp`` of CLIP's parameter (about 100); a tensor is trained through.
        method: the streams and their losses.
        draws: the draws of this step, see ``TrainingMethod.draw``; tensors are read on the device, so that a compiled
            or captured step can take new draws. None draws them here.
        generator: source of the draws; None uses PyTorch's global one.

    Raises:
        ConfigError: the frames or the draws do not fit the head.
        ShapeError: the labels have not the shape, or not the kind of dtype, that the loss needs.

    Source: eq. (12); paper Tables 1, 2 and 7.
    """
    _check_labels(labels, method, len(frame_features), len(class_features))
    if draws is None:
        draws = method.draw(head.layers, head.experts, generator)
    routed, merged = _features(head, frame_features, method, draws)
    # If every expert is a stream, the routed features are ordered by expert: [E * B, T, d].
    streams = len(routed) // len(frame_features)
    # Logits of both streams at once: on a GPU the host takes longer to start these operators than it to run them.
    supervised = routed if merged is None or method.regulariser_loss == "mse" else torch.cat((routed, merged))
    logits = _logits(supervised, class_features, logit_scale, method)
    routed_logits, merged_logits = logits[: len(routed)], logits[len(routed) :]
    repeated = labels if streams == 1 else labels.repeat(streams, *[1] * (labels.ndim - 1))
    routed_loss = _label_loss(method, routed_logits, repeated)
    if merged is None:
        absent = routed_loss.new_zeros(())
        return Loss(routed_loss, routed_loss, absent, absent)
    if method.regulariser_loss == "mse":
        merged_loss = F.mse_loss(merged.repeat(streams, 1, 1), routed.detach())
    else:
        merged_loss = _supervise(method, merged_logits, labels, routed_logits)
    mse = F.mse_loss(merged, frame_features)
    return Loss(routed_loss + method.wmr_weight * merged_loss + method.mse_weight * mse, routed_loss, merged_loss, mse)


def _features(
    head: VideoHead, frame_features: Tensor, method: TrainingMethod, draws: Draws
) -> tuple[Tensor, Tensor | None]:
    """The features of the routed stream or streams, and of the merged stream if there is one."""
    if head.experts <= 1:
        return head.features(frame_features), None
    if method.expert_data == "all":
        merged = None if method.regulariser == "none" else merged_features(head, frame_features, draws.temperatures)
        return every_expert_features(head, frame_features), merged
    if method.regulariser == "none":
        return routed_features(head, frame_features, draws.experts, draws.down_experts), None
    return stream_features(head, frame_features, draws.experts, draws.temperatures, draws.down_experts)


def _check_labels(labels: Tensor, method: TrainingMethod, videos: int, classes: int) -> None:
    if method.loss == "ce":
        shape, kind, fits = [videos], "int64", labels.dtype == torch.int64
    else:
        shape, kind = [videos, classes], "float or bool"
        fits = labels.is_floating_point() or labels.dtype == torch.bool
    found = list(labels.shape)
    if found != shape or not fits:
        raise ShapeError(f"loss {method.loss!r} needs labels {kind} {shape}, got {labels.dtype} {found}")


def _logits(features: Tensor, class_features: Tensor, logit_scale: Tensor | float, method: TrainingMethod) -> Tensor:
    """Logits float32 [B, C] of features [B, T, d]; those of "bce" are positive above its threshold."""
    cosines = cosine_logits(features, class_features).float()
    return logit_scale * (cosines if method.loss == "ce" else cosines - method.bce_threshold)


def _label_loss(method: TrainingMethod, logits: Tensor, labels: Tensor) -> Tensor:
    if method.loss == "ce":
        return F.cross_entropy(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def _supervise(method: TrainingMethod, merged: Tensor, labels: Tensor, routed: Tensor) -> Tensor:
    """Loss of the merged stream's logits [B, C], against the labels or the routed logits [S * B, C]."""
    if method.regulariser_loss == "ce":
        return _label_loss(method, merged, labels)
    # The routed stream is the teacher: detached, so that it learns from the labels alone under any regulariser.
    merged = merged.log_softmax(-1).repeat(len(routed) // len(merged), 1)
    return F.kl_div(merged, routed.detach().log_softmax(-1), log_target=True, reduction="batchmean")
