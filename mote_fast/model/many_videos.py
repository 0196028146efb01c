"""Labels and embeddings of many videos: what a model does with each video of a stream."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from mote_fast.data.loading.view_frames import CropReader
from mote_fast.data.transforms import normalize
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError, MoteError, NotFiniteError, VideoError
from mote_fast.head.scores import pool_views, view_probabilities
from mote_fast.model.caution import warn_user
from mote_fast.model.rejecting import Refuser
from mote_fast.model.results import Prediction, VideoEmbedding, VideoResult, rank
from mote_fast.model.streaming import Streamed, StreamPlan, stream
from mote_fast.model.video_input import Layout, check_several, sort_out
from mote_fast.model.video_model import TIME_LIMIT, VideoModel
from mote_fast.runtime.checks import check_choice, check_count, check_finite

# Frame crops for each pass of the image tower elsewhere than on a CPU.
BATCH_SIZE = 128

# What becomes of the error of one video among several.
Errors: TypeAlias = Literal["raise", "return"]


class StreamOptions(NamedTuple):
    """See ``VideoClassifier.stream_results``."""

    workers: int | None = None
    batch_size: int | None = None
    layout: Layout | None = None
    # Processes that outlive the stream.
    reader: CropReader | None = None


T = TypeVar("T")
Result = TypeVar("Result", VideoResult, VideoEmbedding)


def rank_each(
    model: VideoModel,
    videos: Iterable[Any],
    labels: Sequence[str],
    class_features: Tensor | None,
    views: Views,
    topk: int | None,
    options: StreamOptions,
    refuser: Refuser | None = None,
) -> Generator[VideoResult, None, None]:
    """Yield the ranked labels of each video; see ``VideoClassifier.stream_results``."""
    # Made when the first video has been encoded, so that videos are decoded meanwhile.
    classes: list[Tensor] = [] if class_features is None else [class_features]

    def finish(features: Tensor) -> list[list[Prediction] | MoteError]:
        if not classes:
            classes.append(model.class_features(labels))
        cosines = model.head(features.flatten(0, 1), classes[0].to(features))
        scores = view_probabilities(cosines, features.shape[1], model.clip.logit_scale.double())
        # None of the labels is the answer for a video that is refused.
        most = [0 if refuser is not None and refuser.refuses(each, classes[0]) else topk for each in features]
        return [
            _checked(row, "scores", partial(rank, labels=labels, topk=count))
            for row, count in zip(scores.cpu(), most, strict=True)
        ]

    for found in _each(model, videos, finish, views, options):
        error = found.result if isinstance(found.result, MoteError) else None
        ranked = [] if isinstance(found.result, MoteError) else found.result
        yield VideoResult(found.index, found.video, ranked, error, found.replaced_frames, found.num_frames)


def embed_each(
    model: VideoModel, videos: Iterable[Any], views: Views, options: StreamOptions
) -> Generator[VideoEmbedding, None, None]:
    """Yield the embedding of each video; see ``VideoClassifier.stream_embeddings``."""

    def finish(features: Tensor) -> list[Tensor | MoteError]:
        pooled = model.head.features(features.flatten(0, 1)).float().mean(1).unflatten(0, features.shape[:2])
        return [_checked(row, "video features", lambda found: found) for row in pool_views(pooled)]

    for found in _each(model, videos, finish, views, options):
        error = found.result if isinstance(found.result, MoteError) else None
        vector = None if isinstance(found.result, MoteError) else found.result
        yield VideoEmbedding(found.index, found.video, vector, error, found.replaced_frames, found.num_frames)


def collect(
    video: Any,
    alone: Callable[[Any], Any],
    together: Callable[[Any], Generator[Result, None, None]],
    value: Callable[[Result], Any],
    errors: Errors,
) -> Any:
    """Return the value of one video, or a list of the values of several.

    Args:
        video: the video or the videos.
        alone: what to do with one, in this process. A list of one needs no other process either.
        together: what to do with several.
        value: takes the value out of a result.
        errors: "raise", or "return" in place of the value.
    """

    def one(video: Any) -> Any:
        try:
            return alone(video)
        except (VideoError, ConfigError, NotFiniteError) as error:
            if errors == "raise":
                raise
            return error

    several, video = sort_out(video)
    if not several:
        return one(video)
    source = iter(video)
    first = list(itertools.islice(source, 2))
    if len(first) < 2:
        return [one(each) for each in first]
    found: list[Any] = []
    with contextlib.closing(together(itertools.chain(first, source))) as results:
        for result in results:
            if result.error is not None and errors == "raise":
                raise result.error
            found.append(value(result) if result.error is None else result.error)
    return found


def check_stream(videos: Any, options: StreamOptions) -> None:
    """Check the arguments of a stream.

    Raises:
        ConfigError: the videos are one video, or an option is no integer, or below 1.
    """
    check_several(videos)
    workers, batch_size, layout, _ = options
    if layout is not None:
        check_choice("layout", layout, Layout)
    if workers is not None:
        check_count("workers", workers, 1)
    if batch_size is not None:
        check_count("batch_size", batch_size, 1)


def _each(
    model: VideoModel,
    videos: Iterable[Any],
    finish: Callable[[Tensor], list[T | MoteError]],
    views: Views,
    options: StreamOptions,
) -> Generator[Streamed[T], None, None]:
    preprocessing, dtype = model.clip.config.preprocessing, model.clip.dtype

    def encode(parts: list[Tensor]) -> Tensor:
        crops = torch.cat([part.to(model.device) for part in parts])
        return model.encode_frames(normalize(crops, preprocessing, dtype), many=True)

    warn_user(model.caution)
    batch_size = options.batch_size
    if batch_size is None and model.device.type != "cpu":
        batch_size = BATCH_SIZE
    workers = options.workers or os.cpu_count() or 1
    reader = options.reader or model.make_reader(workers)
    plan = StreamPlan(
        model.view_request(views),
        torch.no_grad()(encode),
        torch.no_grad()(finish),
        model.frame_counts,
        model.note_stand_ins,
        workers,
        batch_size,
        model.decode_time_limit or TIME_LIMIT,
        options.layout,
        reader,
    )
    try:
        yield from stream(videos, plan)
    finally:
        if options.reader is None:
            reader.close()


def _checked(values: Tensor, what: str, use: Callable[[Tensor], T]) -> T | MoteError:
    """Use the output of a model, or return why it is none."""
    try:
        check_finite(values, what)
    except NotFiniteError as error:
        return error
    return use(values)
