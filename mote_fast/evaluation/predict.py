"""One pass over a list of videos: the model's predictions, gathered over all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mote_fast.data.items import UNLABELLED
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.video_loader import VideoLoader
from mote_fast.errors import ConfigError
from mote_fast.head.scores import full_class_scores, pool_views, view_scores
from mote_fast.head.video_head import VideoHead, cosine_logits
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.distinct_frames import distinct_frames
from mote_fast.runtime.checks import check_finite
from mote_fast.runtime.distributed import gather
from mote_fast.runtime.progress import Progress
from mote_fast.runtime.seeding import generator_of

# Frames per forward pass of the image tower; bounds memory for any batch size and number of views.
FRAMES_PER_PASS = 128


# Maps frames [N, 3, S, S] to features [N, d].
FrameEncoder: TypeAlias = Callable[[Tensor], Tensor]


class LabelSet(NamedTuple):
    """Classes, and the videos to classify among them.

    Attributes:
        class_features: [C, d], class features.
        labels: int64 [videos of the loader's list], the class index of each video, or ``UNLABELLED`` for a video
            outside this label set. None: every video, with the loader's label.
    """

    class_features: Tensor
    labels: Tensor | None = None


class Judge(NamedTuple):
    """A label set, and the function that scores videos with it.

    Attributes:
        label_set: classes and videos.
        scores: maps frames [B, V, T, d], class features [C, d] and indices [B] to the running scores float64 [B, C] and
            the pooled features float32 [B, d], see ``Predictions``.
    """

    label_set: LabelSet
    scores: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for the N readable videos, in the order of their indices; all on the CPU.

    Attributes:
        indices: int64 [N], ascending: the list index of each row's video.
        labels: int64 [N].
        running: float64 [N, C], the score that the official code accumulates batch by batch: softmax of unscaled
            cosines per view, mean over views, softmax. In float64, because the rows are nearly uniform: in float32
            cosines 1e-4 apart would tie.
        features: float32 [N, d], unit length: each view's feature averaged over frames and normalised, then averaged
            over views and normalised.
        class_features: float32 [C, d], unit length.
        failures: the videos that could not be read, in the order of their indices.
    """

    indices: Tensor
    labels: Tensor
    running: Tensor
    features: Tensor
    class_features: Tensor
    failures: tuple[Failure, ...]

    @property
    def full_class(self) -> Tensor:
        """float64 [N, C], the official code's other score: softmax of 100 x cosine of the mean view feature."""
        return full_class_scores(self.features, self.class_features)


def as_they_are(features: Tensor) -> Tensor:
    """Encode nothing: the ``FrameEncoder`` of batches that hold frame features in place of pixels."""
    return features


def predict(
    model: VideoClassifier,
    loader: VideoLoader,
    class_features: Tensor,
    *,
    progress: Progress | None = None,
    encode: FrameEncoder | None = None,
) -> Predictions:
    """Run the model over every video of a loader.

    Under an initialised process group every process calls this with its own share of the list, which may be smaller
    than the others' or empty, and gets the predictions of all.

    Args:
        model: the unwrapped model; its experts are merged here, and its training mode is preserved.
        loader: a loader for evaluation of this process's share.
        class_features: [C, d], class features of the candidate labels.
        progress: called with the number of this process's videos done since the last call.
        encode: see ``encode_videos``.

    Raises:
        ConfigError: two processes read the same video.
        NotFiniteError: features or scores are NaN or infinite.
    """
    return predict_label_sets(model, loader, [LabelSet(class_features)], progress=progress, encode=encode)[0]


def predict_label_sets(
    model: VideoClassifier,
    loader: VideoLoader,
    label_sets: Sequence[LabelSet],
    *,
    progress: Progress | None = None,
    encode: FrameEncoder | None = None,
) -> list[Predictions]:
    """Run the model over every video once, and classify it with every label set that it belongs to.

    Frames are decoded and encoded once. Modulation depends on the label set, so the head runs once per set.

    Args: as ``predict``.
    """
    with _evaluating(model), _inferring(model.device):
        head = model.fold().head
    judges = [Judge(each, partial(judge_by_head, head)) for each in label_sets]
    return judge_videos(model, loader, judges, progress, encode)


def judge_videos(
    model: VideoClassifier,
    loader: VideoLoader,
    judges: Sequence[Judge],
    progress: Progress | None = None,
    encode: FrameEncoder | None = None,
) -> list[Predictions]:
    """Encode every video of a loader once, and score it with every judge whose label set it belongs to.

    Args:
        model: the model that encodes the frames.
        loader: a loader for evaluation of this process's share.
        judges: the label sets and their scoring functions.
        progress: as in ``predict``.
        encode: see ``encode_videos``.

    Raises:
        ConfigError: two processes read the same video.
        NotFiniteError: features or scores are NaN or infinite.
    """
    rows: list[list[_Rows]] = [[] for _ in judges]
    failures: list[Failure] = []
    for batch, frame_features in encode_videos(model, loader, failures, progress, encode):
        for found, judge in zip(rows, judges, strict=True):
            found.append(_judge(judge, frame_features, batch))
    return _gather(rows, failures, [judge.label_set for judge in judges])


@dataclass(frozen=True)
class Embeddings:
    """A model's embeddings of the N readable videos, in the order of their indices; all on the CPU.

    Attributes:
        indices: int64 [N], ascending: the list index of each row's video.
        features: float32 [N, d], unit length, as ``VideoClassifier.embed`` returns them.
        failures: the videos that could not be read, in the order of their indices.
    """

    indices: Tensor
    features: Tensor
    failures: tuple[Failure, ...]


def embed_videos(model: VideoClassifier, loader: VideoLoader, *, progress: Progress | None = None) -> Embeddings:
    """Embed every video of a loader; without a label set there is no modulation.

    Args and Raises: as ``predict``, and processes share the work in the same way.
    """
    with _evaluating(model), _inferring(model.device):
        head = model.fold().head
    indices: list[Tensor] = [torch.empty(0, dtype=torch.int64)]
    features: list[Tensor] = [torch.empty(0, model.clip.embed_dim)]
    failures: list[Failure] = []
    for batch, frame_features in encode_videos(model, loader, failures, progress):
        with _inferring(frame_features.device):
            found = _features(head, frame_features, None, batch.indices).float().mean(1)
            pooled = pool_views(found.unflatten(0, (len(batch.indices), -1))).cpu()
        check_finite(pooled, "video features")
        indices.append(batch.indices)
        features.append(pooled)
    shares = gather((torch.cat(indices), torch.cat(features), failures))
    rows = torch.cat([each for each, _, _ in shares])
    unread = sorted((each for *_, part in shares for each in part), key=lambda failure: failure.index)
    _refuse_repeats(torch.cat((rows, torch.tensor([each.index for each in unread], dtype=torch.int64))))
    order = rows.argsort()
    return Embeddings(rows[order], torch.cat([each for _, each, _ in shares])[order], tuple(unread))


def encode_videos(
    model: VideoClassifier,
    loader: VideoLoader,
    failures: list[Failure],
    progress: Progress | None = None,
    encode: FrameEncoder | None = None,
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield the non-empty batches of a loader with their frame features [B, V, T, d]; no gradients.

    Args:
        model: the model that encodes the frames; its training mode is preserved.
        loader: a loader for evaluation.
        failures: the list that receives the loader's failures.
        progress: called with the number of videos done since the last call.
        encode: encodes the frames instead of the model's own image tower; its features may have another width d.
    """
    with _evaluating(model):
        run = encode or partial(model.encode_frames, many=True)
        batches = loader.epoch(0)
        batch = next(batches, None)
        while batch is not None:
            failures.extend(batch.failures)
            # Not around the loader: buffers that it allocates in inference mode could not be written later.
            with _inferring(model.device):
                encoded = _encode(model, batch, run) if len(batch.indices) else None
            # A GPU is given the next batch to copy before its results are waited for.
            ahead = model.device.type == "cuda"
            following = next(batches, None) if ahead else None
            if encoded is not None:
                check_finite(encoded, "frame features")
                yield batch, encoded
            if progress is not None:
                progress(len(batch.indices) + len(batch.failures))
            batch = following if ahead else next(batches, None)


def score_videos(features: Tensor, class_features: Tensor, views: int) -> tuple[Tensor, Tensor]:
    """Return the running scores [B, C] and the pooled features [B, d] of ``features [B * V, T, d]``; on their device.

    Args:
        features: float32; the views of a video are consecutive.
        class_features: [C, d], class features.
        views: V.
    """
    pooled = pool_views(features.mean(1).unflatten(0, (-1, views)))
    return view_scores(cosine_logits(features, class_features.float()).double(), views), pooled


def _encode(model: VideoClassifier, batch: Batch, encode: FrameEncoder) -> Tensor:
    found = distinct_frames(batch.pixels.flatten(0, 1))
    model.frame_counts.add(found)
    parts = [encode(part.to(model.device, model.clip.dtype)) for part in found.frames.split(FRAMES_PER_PASS)]
    features = found.spread(torch.cat(parts))
    return features.unflatten(0, (len(batch.indices), -1, batch.pixels.shape[1]))


class _Rows(NamedTuple):
    """Part of the rows of ``Predictions``."""

    indices: Tensor
    labels: Tensor
    running: Tensor
    features: Tensor


def _judge(judge: Judge, frame_features: Tensor, batch: Batch) -> _Rows:
    """Score the videos of a batch, frame features [B, V, T, d], that belong to the judge's label set."""
    indices, labels, label_set = batch.indices, batch.labels.cpu(), judge.label_set
    if label_set.labels is not None:
        labels = label_set.labels[indices]
        kept = labels != UNLABELLED
        indices, labels, frame_features = indices[kept], labels[kept], frame_features[kept.to(frame_features.device)]
    if not len(indices):
        empty = torch.empty(0, len(label_set.class_features), dtype=torch.float64)
        return _Rows(indices, labels, empty, torch.empty(0, frame_features.shape[-1]))
    with _inferring(frame_features.device):
        # In their own dtype: the cosines are computed in float32, and rounded classes would tie.
        classes = label_set.class_features.to(frame_features.device)
        running, pooled = judge.scores(frame_features, classes, indices)
    running, pooled = running.cpu(), pooled.cpu()
    check_finite(running, "scores")
    check_finite(pooled, "video features")
    return _Rows(indices, labels, running, pooled)


def judge_by_head(
    head: VideoHead, frame_features: Tensor, class_features: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """Score videos as the head's own evaluation does; see ``Judge.scores``."""
    views = frame_features.shape[1]
    running, pooled = score_videos(
        _features(head, frame_features, class_features, indices).float(), class_features, views
    )
    if head.config.aggregation == "ensemble":
        # The mean of the experts' cosines does not equal the cosine of any single feature.
        running = view_scores(head(frame_features.flatten(0, 1), class_features).double(), views)
    return running, pooled


def _features(head: VideoHead, frame_features: Tensor, class_features: Tensor | None, indices: Tensor) -> Tensor:
    """Temporal features [B * V, T, d] of ``frame_features [B, V, T, d]``."""
    if head.config.aggregation != "random":
        return head.features(frame_features.flatten(0, 1), class_features)
    # Each video has its own generator, so that its draws do not depend on its batch or process.
    drawn = (generator_of("random routing", index) for index in indices.tolist())
    return torch.cat(
        [
            head.features(each, class_features, generator=source)
            for each, source in zip(frame_features, drawn, strict=True)
        ]
    )


def _gather(rows: list[list[_Rows]], failures: list[Failure], label_sets: Sequence[LabelSet]) -> list[Predictions]:
    """Gather the predictions of all processes; every process gets the same result."""
    joined = [_join(found, label_set) for found, label_set in zip(rows, label_sets, strict=True)]
    shares = gather((joined, failures))
    every_failure = sorted((each for _, part in shares for each in part), key=lambda failure: failure.index)
    results: list[Predictions] = []
    for number, label_set in enumerate(label_sets):
        mine = [failure for failure in every_failure if _belongs(failure, label_set)]
        all_rows = _join([part[number] for part, _ in shares], label_set)
        order = all_rows.indices.argsort()
        _refuse_repeats(torch.cat((all_rows.indices, torch.tensor([each.index for each in mine], dtype=torch.int64))))
        indices, labels, running, features = (column[order] for column in all_rows)
        class_features = F.normalize(label_set.class_features.detach().float().cpu(), dim=-1)
        results.append(Predictions(indices, labels, running, features, class_features, tuple(mine)))
    return results


def _join(parts: Sequence[_Rows], label_set: LabelSet) -> _Rows:
    if parts:
        return _Rows(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    none = torch.empty(0, dtype=torch.int64)
    count, width = label_set.class_features.shape
    return _Rows(none, none, torch.empty(0, count, dtype=torch.float64), torch.empty(0, width))


def _belongs(failure: Failure, label_set: LabelSet) -> bool:
    return label_set.labels is None or int(label_set.labels[failure.index]) != UNLABELLED


def _refuse_repeats(indices: Tensor) -> None:
    distinct, counts = indices.unique(return_counts=True)
    if bool((counts > 1).any()):
        raise ConfigError(
            f"video {int(distinct[counts > 1][0])} was given to more than one process, or twice to one; "
            "make each process's loader with its own shard"
        )


@contextmanager
def _inferring(device: torch.device) -> Iterator[None]:
    """Disable gradients and the caller's autocast."""
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Set a model to evaluation mode, then restore the mode of each module."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
