"""What a model says of windows of frames: cosines with labels, and with what shows none of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.errors import ConfigError
from mote_fast.model.video_model import VideoModel
from mote_fast.timeline.rejection import Rejecter, Rejection, levels_of, read_rejection
from mote_fast.timeline.scorer import WindowScores


class WindowJudge:
    """Scores windows for a label set.

    Args:
        model: the model.
        classes: [C, d], features of the labels, which alone enter the modulation.
        rejecter: what else to compare windows with.
    """

    def __init__(self, model: VideoModel, classes: Tensor, rejecter: Rejecter) -> None:
        self._model, self._classes, self._rejecter = model, classes, rejecter
        vectors = model.class_features(rejecter.words) if rejecter.words else rejecter.vectors
        self._background = classes[:0] if vectors is None else vectors
        tuned = model.head.train_class_features
        # Placeholders of zeros have no direction.
        known = tuned is not None and model.head.can_modulate
        self._reference = F.normalize(tuned.float(), dim=-1).mean(0) if tuned is not None and known else None

    @torch.no_grad()
    def __call__(self, windows: Tensor, times: list[float]) -> WindowScores:
        """Score frame features [B, T, d]."""
        head = self._model.head
        classes = self._classes.to(windows)
        features = head.features(windows, classes)
        cosines = head.cosines(features, classes)
        background = head.cosines(features, self._background.to(windows)) if len(self._background) else cosines[:, :0]
        pooled = F.normalize(features.float().mean(1), dim=-1)
        none = pooled.new_zeros(len(pooled))
        reference = none if self._reference is None else pooled @ self._reference.to(pooled)
        kept = pooled.half() if self._rejecter.kind == "example" else pooled[:, :0].half()
        return WindowScores(times, cosines.float().cpu(), reference.cpu(), background.float().cpu(), kept.cpu())


def least_level(model: VideoModel, rejecter: Rejecter, name: str) -> float:
    """Return the level below which a video or a window that is judged by itself shows none of the labels.

    Raises:
        ConfigError: the argument ``name`` is "auto", and nobody measured the model's level.
    """
    if rejecter.kind == "none":
        return -math.inf
    if rejecter.kind != "auto":
        return rejecter.threshold
    if model.reject_level is None:
        raise ConfigError(
            f"{name}='auto' needs the model's reject_level, which nobody measured; set it, or give a level, words, or "
            "embeddings of background"
        )
    return model.reject_level


class Refuser:
    """Says of whole videos whether they show none of the labels.

    Args:
        model: the model.
        reject: see ``VideoClassifier.classify``.

    Raises:
        ConfigError: the argument is malformed, or "auto" and nobody measured the model's level.
    """

    def __init__(self, model: VideoModel, reject: Rejection) -> None:
        self._model = model
        self._rejecter = read_rejection(reject, model.clip.embed_dim, "reject")
        self._least = least_level(model, self._rejecter, "reject")

    def refuses(self, features: Tensor, classes: Tensor) -> bool:
        """Whether the views of a video, frame features [V, T, d], show none of the classes [C, d]."""
        if self._rejecter.kind == "none":
            return False
        found = WindowJudge(self._model, classes, self._rejecter)(features, [])
        means = (each.mean(0, keepdim=True) for each in (found.cosines, found.reference, found.background))
        return bool(levels_of(self._rejecter, *means) < self._least)


def refuser_of(model: VideoModel, reject: Rejection) -> Refuser | None:
    """Return what refuses videos as ``VideoClassifier.classify`` does; None if nothing is to be refused."""
    return None if reject is None else Refuser(model, reject)
