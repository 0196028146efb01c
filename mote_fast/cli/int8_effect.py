"""Measures the effect of int8 on one video's features and scores."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.errors import ConfigError
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.video_input import Video


class Int8Effect(NamedTuple):
    """Comparison of an int8 model with the same weights in float32, on one video.

    Attributes:
        cosine: lowest cosine over frames between the int8 and the float32 feature.
        score: largest difference of a label's probability.
        same_top: whether the best label is the same.
    """

    cosine: float
    score: float
    same_top: bool


@torch.no_grad()
def int8_effect(model: VideoClassifier, video: Video, class_features: Tensor, views: str = "1x1") -> Int8Effect:
    """Classify a video in int8 and in float32 and compare; costs one pass of each over the frames of ``views``.

    Args:
        model: a model with ``dtype="int8"``.
        video: as in ``VideoClassifier.classify``.
        class_features: [C, d], from ``class_features``.
        views: as in ``VideoClassifier.classify``.

    Raises:
        ConfigError: the model is not an int8 model.
        VideoError: the video cannot be read.
    """
    if model.int8 is None:
        raise ConfigError("int8_effect compares a model made with dtype='int8'; this one is not")
    twin = VideoClassifier(model.clip, model.head, model.frames).eval()
    twin.decode_backend, twin.decode_time_limit = model.decode_backend, model.decode_time_limit
    twin.pixel_aspect, twin.crops_along = model.pixel_aspect, model.crops_along
    quantized, exact = (each.view_features(video, views) for each in (model, twin))
    scores, expected = (model.scores_from_features(features, class_features) for features in (quantized, exact))
    return Int8Effect(
        cosine=F.cosine_similarity(quantized, exact, dim=-1).min().item(),
        score=(scores - expected).abs().max().item(),
        same_top=bool(scores.argmax() == expected.argmax()),
    )
