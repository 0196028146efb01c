"""What a model says of a video: ranked labels or an embedding, or why the video could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mote_fast.errors import MoteError


@dataclass(frozen=True)
class Prediction:
    """One ranked label: the name, its index in the given list, and its probability.

    ``prediction["score"]`` and ``dict(prediction)`` work too, and a list of predictions makes a ``pandas.DataFrame``.
    """

    label: str
    index: int
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Return the values by their names, which JSON can hold."""
        return {"label": self.label, "index": self.index, "score": self.score}

    def keys(self) -> Iterable[str]:
        """Return the names of the values."""
        return self.to_dict().keys()

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    # pandas takes what can be iterated for a row without names.
    __iter__ = None


@dataclass(frozen=True)
class VideoResult:
    """One video's labels, as ``VideoClassifier.stream_results`` yields them.

    Attributes:
        index: position of the video among those given, from 0.
        video: its path; "<bytes>" or "<frames>" for what has none.
        predictions: the best labels, best first; empty if there is an error, or if the video was rejected.
        error: why the video has no labels, usually a ``VideoError``; None if it has.
        replaced_frames: frames that could not be decoded and were replaced by their nearest neighbors.
        num_frames: of the whole video; None if they could not be counted.
    """

    index: int
    video: str
    predictions: list[Prediction]
    error: MoteError | None = None
    replaced_frames: int = 0
    num_frames: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the values by their names, which JSON can hold; the error as its text, and its class as ``kind``."""
        return {
            "index": self.index,
            "video": self.video,
            "predictions": [each.to_dict() for each in self.predictions],
            **_described(self.error),
            "replaced_frames": self.replaced_frames,
            "num_frames": self.num_frames,
        }


@dataclass(frozen=True, eq=False)
class WindowEmbeddings:
    """The embeddings of N windows of one video, as ``VideoClassifier.embed_windows`` returns them.

    Attributes:
        spans: seconds where each begins and ends, in order.
        embeddings: float32 [N, d], on the CPU, L2-normalised.
        replaced_frames: see ``VideoResult``.
    """

    spans: list[tuple[float, float]]
    embeddings: Tensor
    replaced_frames: int = 0


@dataclass(frozen=True, eq=False)
class VideoEmbedding:
    """One video's embedding, as ``VideoClassifier.stream_embeddings`` yields them.

    Attributes:
        index: see ``VideoResult``.
        video: see ``VideoResult``.
        embedding: float32 [d], L2-normalised; None if there is an error.
        error: see ``VideoResult``.
        replaced_frames: see ``VideoResult``.
        num_frames: see ``VideoResult``.
    """

    index: int
    video: str
    embedding: Tensor | None
    error: MoteError | None = None
    replaced_frames: int = 0
    num_frames: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the values by their names, the embedding as a list; otherwise as ``VideoResult.to_dict``."""
        return {
            "index": self.index,
            "video": self.video,
            "embedding": None if self.embedding is None else self.embedding.tolist(),
            **_described(self.error),
            "replaced_frames": self.replaced_frames,
            "num_frames": self.num_frames,
        }


def rank(scores: Tensor, labels: Sequence[str], topk: int | None) -> list[Prediction]:
    """Return the ``topk`` best labels of scores [C], best first; None takes all."""
    # A stable sort keeps equal scores (duplicate labels) in the order given.
    order: list[int] = scores.cpu().argsort(descending=True, stable=True)[:topk].tolist()
    return [Prediction(labels[index], index, float(scores[index])) for index in order]


def _described(error: MoteError | None) -> dict[str, str | None]:
    return {"error": None, "kind": None} if error is None else {"error": str(error), "kind": type(error).__name__}
