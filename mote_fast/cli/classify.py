"""``mote-fast classify``: rank labels for videos."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from mote_fast.cli import inputs, outputs
from mote_fast.cli.int8_effect import int8_effect
from mote_fast.data.views import Views


def run(arguments: argparse.Namespace) -> int:
    """Classify each video; a bad video is reported and the others are processed. Returns 0, or 2 if any failed."""
    labels = inputs.labels_of(arguments)
    views = Views.parse(arguments.views)
    model = inputs.model_of(arguments)
    model.pixel_aspect, model.crops_along = arguments.pixel_aspect, arguments.crops_along
    labels = inputs.classes_of(model, arguments) if labels is None else labels
    classes = inputs.encode_labels(model, labels)

    def ranked(video: str) -> list[dict[str, Any]]:
        found = model.classify(video, labels, views=arguments.views, topk=arguments.topk, class_features=classes)
        return [vars(prediction) for prediction in found]

    results = inputs.judge_each(model, arguments.videos, "predictions", ranked)
    document = {
        "checkpoint": arguments.checkpoint or arguments.model,
        "caution": model.caution,
        "views": f"{views.clips}x{views.crops}",
        "crops_along": arguments.crops_along,
        "videos": results,
    }
    readable = [result for result in results if not result["error"]]
    notes: list[str] = []
    if arguments.dtype == "int8" and readable:
        effect = int8_effect(model, readable[0]["video"], classes)
        document["int8_effect"] = effect._asdict()
        notes += [
            f"note: int8 against float32, one view of the first video: feature cosine {effect.cosine:.5f}, scores "
            f"within {100 * effect.score:.2f} %, {'the same' if effect.same_top else 'another'} best label"
        ]
    lines: list[str] = []
    for result in readable:
        lines += [result["video"]]
        lines += [f"  {100 * each['score']:6.2f} %  {each['label']}" for each in result["predictions"]]
    outputs.show(arguments, document, lines)
    for note in notes:
        print(note, file=sys.stderr)
    return outputs.report([result["error"] for result in results if result["error"]])
