"""The protocols of the paper: splits in, accuracies of each split and over the splits out (docs/method.md, Views)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.video_loader import VideoLoader
from mote_fast.errors import ConfigError, quoted
from mote_fast.evaluation.accuracy import Ranked, rank
from mote_fast.evaluation.average_precision import COSINE, Relevance, positives_of
from mote_fast.evaluation.predict import LabelSet, Predictions, predict_label_sets
from mote_fast.evaluation.protocol_names import FULL_CLASS, RUNNING, ProtocolName
from mote_fast.evaluation.protocols import half_class_tasks
from mote_fast.evaluation.splits import Split, VideoPool
from mote_fast.head.scores import full_class_scores
from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.progress import Progress
from mote_fast.runtime.text import plain


@dataclass(frozen=True)
class SplitResult:
    """The result of one split of n listed videos.

    Attributes:
        split: the videos and class names.
        predictions: predictions of all videos with those class names, possibly of other splits too.
        rows: int64 [n], each listed video's row in ``predictions``; -1 if it could not be read.
        ranked: by the name of each score: the best labels, or the scores of all classes if videos have several labels.
    """

    split: Split
    predictions: Predictions
    rows: Tensor
    ranked: Mapping[str, Ranked] | Mapping[str, Relevance]


@dataclass(frozen=True)
class Score:
    """The ranked videos of one split of the protocol; the protocol averages the accuracies of its splits.

    ``ranked`` has the scores that the protocol defines: both, or the full-class one for a half of the classes; for
    videos with several labels both, and "cosine".
    """

    name: str
    classes: int
    ranked: Mapping[str, Ranked] | Mapping[str, Relevance]


@dataclass(frozen=True)
class Evaluation:
    """The result of a protocol.

    Attributes:
        protocol: its name.
        lists: one result per split that was given.
        scores: the splits that the protocol averages over: the lists, mixed or not, or the ten halves of the classes.
        failures: the videos that could not be read, in the order of the pool.
    """

    protocol: ProtocolName
    lists: Sequence[SplitResult]
    scores: Sequence[Score]
    failures: Sequence[Failure]


def check_protocol(protocol: ProtocolName, splits: Sequence[Split]) -> None:
    """Check that the lists fit the protocol, before anything is decoded.

    Raises:
        ConfigError: half-class got several lists or fewer than four classes; mixed got one list; base-to-novel got
            other than two, or two with a common class; one of these got videos with several labels; two lists have one
            name; some lists have videos with several labels and some have not.
    """
    names = [split.name for split in splits]
    if len(set(names)) < len(names):
        raise ConfigError(f"the lists need different file names, for the report names them by it; got {names}")
    if protocol == "mixed" and len(splits) < 2:
        raise ConfigError("the mixed protocol judges each list among the classes of all: give several lists")
    several = [split.several_labels for split in splits]
    if len(set(several)) > 1:
        raise ConfigError(
            f"the videos of {names[several.index(True)]} have several labels, those of {names[several.index(False)]} "
            "one: the former are measured by average precision, so evaluate them apart"
        )
    if protocol == "base2novel":
        _check_base_and_novel(splits)
    if protocol in ("halfclass", "mixed", "base2novel") and any(several):
        raise ConfigError(f"the {protocol} protocol needs one label for each video; those of {names[0]} have several")
    if protocol != "halfclass":
        return
    if len(splits) > 1:
        raise ConfigError(f"the half-class protocol makes its splits itself: give one list, not {len(splits)}")
    if len(splits[0].class_names) < 4:
        raise ConfigError(f"half of {len(splits[0].class_names)} classes leaves nothing to tell apart")


def _check_base_and_novel(splits: Sequence[Split]) -> None:
    if len(splits) != 2:
        raise ConfigError(f"the base2novel protocol needs two lists, base and then novel, got {len(splits)}")
    base, novel = splits
    known = {plain(name): name for name in base.class_names}
    common = [known[plain(name)] for name in novel.class_names if plain(name) in known]
    if common:
        raise ConfigError(
            f"the class {quoted(common[0])} is among those of {base.name} and of {novel.name}; a novel class is not "
            "trained, so give each list its own class names"
        )


def evaluate(
    model: VideoClassifier,
    loader: VideoLoader,
    pool: VideoPool,
    splits: Sequence[Split],
    class_features: Sequence[Tensor],
    protocol: ProtocolName,
    *,
    progress: Progress | None = None,
) -> Evaluation:
    """Run a protocol. Each video is decoded and encoded once, even if several splits list it.

    Under an initialised process group every process calls this, and gets the same result.

    Args:
        model: the classifier.
        loader: a loader for evaluation of this process's share of ``pool.items``.
        pool: ``pool_splits(splits)``.
        splits: see ``check_protocol``; for "mixed" the lists followed by their ``mix_splits``.
        class_features: [C, d] for each of ``pool.class_names``.
        protocol: "closeset", "zeroshot", "halfclass", "mixed", "fewshot" or "base2novel". All but half-class compute
            the same; they differ in data, checkpoint and views.
        progress: see ``predict``.

    Raises:
        ConfigError: the loader has other videos than the pool, or yields one twice.
    """
    label_sets = [LabelSet(*pair) for pair in zip(class_features, pool.labels, strict=True)]
    predictions = predict_label_sets(model, loader, label_sets, progress=progress)
    failures = {failure.index: failure for each in predictions for failure in each.failures}
    lists = [
        _result(split, predictions[member.label_set], member.positions, len(pool.items))
        for split, member in zip(splits, pool.memberships, strict=True)
    ]
    for result, member in zip(lists, pool.memberships, strict=True):
        unread = set(member.positions[result.rows < 0].tolist())
        if not unread <= failures.keys():
            raise ConfigError(f"the loader silently skipped video {min(unread - failures.keys())} of the pool")
    if protocol == "halfclass":
        scores = _halves(lists[0])
    else:
        scored = lists[len(lists) // 2 :] if protocol == "mixed" else lists
        scores = [Score(each.split.name, len(each.split.class_names), each.ranked) for each in scored]
    return Evaluation(protocol, lists, scores, [failures[index] for index in sorted(failures)])


def _result(split: Split, predictions: Predictions, positions: Tensor, videos: int) -> SplitResult:
    row_of = torch.full((videos,), -1)
    row_of[predictions.indices] = torch.arange(len(predictions.indices))
    rows = row_of[positions]
    if split.several_labels:
        return SplitResult(split, predictions, rows, _relevance(split, predictions, rows))
    labels = _labels_of(split)
    ranked = {
        RUNNING: rank(predictions.running, rows, labels),
        FULL_CLASS: rank(predictions.full_class, rows, labels),
    }
    return SplitResult(split, predictions, rows, ranked)


def _relevance(split: Split, predictions: Predictions, rows: Tensor) -> dict[str, Relevance]:
    positives, read = positives_of(split.items, len(split.class_names)), rows >= 0
    by_name = {
        RUNNING: predictions.running,
        FULL_CLASS: predictions.full_class,
        COSINE: predictions.features.double() @ predictions.class_features.double().T,
    }
    found: dict[str, Relevance] = {}
    for name, values in by_name.items():
        scores = torch.zeros(positives.shape, dtype=torch.float64)
        scores[read] = values[rows[read]].double()
        found[name] = Relevance(scores, positives, read)
    return found


def _labels_of(split: Split) -> Tensor:
    return torch.tensor([item.label for item in split.items])


def _halves(result: SplitResult) -> list[Score]:
    """Score the videos of each half of the classes among that half; their features are those of the whole label set."""
    labels = _labels_of(result.split)
    predictions = result.predictions
    scores: list[Score] = []
    for number, task in enumerate(half_class_tasks(labels, len(result.split.class_names))):
        among = full_class_scores(predictions.features, predictions.class_features[task.classes])
        ranked = rank(among, result.rows[task.videos], task.labels)
        scores.append(Score(f"half {number}", len(task.classes), {FULL_CLASS: ranked}))
    return scores
