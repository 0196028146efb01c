"""``mote-fast classify``: rank labels for videos."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from mote_fast.cli import inputs, options
from mote_fast.cli.int8_effect import int8_effect
from mote_fast.cli.rejection_options import check_rejection, rejection_of
from mote_fast.cli.result_writers import Layout, Record, writers_of
from mote_fast.cli.videos import judged_each, videos_of, write_each
from mote_fast.data.views import Views
from mote_fast.model.results import Prediction, VideoResult


def run(arguments: argparse.Namespace) -> int:
    """Classify each video; a bad video is reported and the others are processed. Returns 0, or 3 if any failed."""
    labels = inputs.labels_of(arguments)
    views = Views.parse(arguments.views)
    check_rejection(arguments)
    writers = writers_of(arguments, _LAYOUT)
    videos = videos_of(arguments)
    model = inputs.model_of(arguments)
    model.pixel_aspect, model.crops_along = arguments.pixel_aspect, arguments.crops_along
    labels = inputs.classes_of(model, arguments) if labels is None else labels
    classes = inputs.encode_labels(model, labels)
    request: dict[str, Any] = {
        "views": arguments.views,
        "topk": arguments.topk,
        "class_features": classes,
        "reject": rejection_of(model, arguments),
    }

    def rank(video: str) -> list[dict[str, Any]]:
        return _listed(model.classify(video, labels, **request))

    def rank_each(several: Sequence[str], workers: int) -> Generator[VideoResult, None, None]:
        return model.stream_results(several, labels, workers=workers, **request)

    def value(result: VideoResult) -> list[dict[str, Any]]:
        return _listed(result.predictions)

    def int8_facts(first: str | None) -> Mapping[str, Any]:
        if arguments.dtype not in options.INT8 or first is None:
            return {}
        effect = int8_effect(model, first, classes)
        note = (
            f"note: int8 against float32, one view of the first video: feature cosine {effect.cosine:.5f}, scores "
            f"within {100 * effect.score:.2f} %, {'the same' if effect.same_top else 'another'} best label"
        )
        print(note, file=sys.stderr)
        return {"int8_effect": effect._asdict()}

    facts = {
        "checkpoint": arguments.checkpoint or arguments.model,
        "caution": model.caution,
        "views": f"{views.clips}x{views.crops}",
        "crops_along": arguments.crops_along,
        "loader": inputs.loader_of(arguments, model),
    }
    for writer in writers:
        writer.begin(facts)
    judged = judged_each(model, videos.present, rank, rank_each, value)
    return write_each(videos, judged, "predictions", writers, int8_facts)


def _listed(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    return [vars(each) for each in predictions]


def _lines(record: Record) -> list[str]:
    if record["error"]:
        return []
    if not record["predictions"]:
        return [record["video"], "  none of these"]
    return [record["video"], *(f"  {100 * each['score']:6.2f} %  {each['label']}" for each in record["predictions"])]


def _rows(record: Record) -> list[list[object]]:
    if record["error"]:
        return [[record["video"], "", "", "", "", record["error"]]]
    if not record["predictions"]:
        return [[record["video"], "", "", "", "", ""]]
    return [
        [record["video"], place, each["label"], each["index"], each["score"], ""]
        for place, each in enumerate(record["predictions"], 1)
    ]


_LAYOUT = Layout(_lines, _rows, ("video", "rank", "label", "index", "score", "error"))
