"""``mote-fast classify``: rank labels for videos."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from torch import Tensor
from tqdm import tqdm

from mote_fast.cli.int8_effect import Int8Effect, int8_effect
from mote_fast.cli.options import (
    UNTRAINED_NOTE,
    add_label_options,
    add_model_options,
    add_video_argument,
    is_untrained,
    labels_of,
    model_of,
)
from mote_fast.clip.class_features import TEMPLATES
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError, VideoError
from mote_fast.model.classifier import VideoClassifier


def add_command(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("classify", help="rank labels for videos", description=__doc__)
    add_video_argument(parser, views="3x1")
    add_label_options(parser)
    parser.add_argument("--topk", type=int, default=5, help="labels to print per video (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.add_argument("--no-cache", action="store_true", help="neither read nor write class features on disk")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Classify each video; a bad one is reported and the rest go on. Returns 0, or 2 when any failed."""
    labels = labels_of(arguments)
    views = Views.parse(arguments.views)
    if arguments.topk < 1:
        raise ConfigError(f"--topk must be at least 1, got {arguments.topk}")
    model = model_of(arguments)
    if arguments.no_cache:
        model.feature_cache = None
    classes = encode_labels(model, labels)
    results, failed = [], 0
    for video in progress(arguments.videos, "videos"):
        try:
            predictions = model.classify(
                video, labels, views=arguments.views, topk=arguments.topk, class_features=classes
            )
            ranked = [vars(prediction) for prediction in predictions]
            results.append({"video": video, "predictions": ranked, "error": None})
        except VideoError as error:
            failed += 1
            results.append({"video": video, "predictions": None, "error": str(error)})
    untrained = is_untrained(arguments)
    effect = _int8_effect(model, results, classes) if arguments.dtype == "int8" else None
    if arguments.json:
        document = {"untrained": untrained, "views": f"{views.clips}x{views.crops}", "videos": results}
        if effect is not None:
            document["int8_effect"] = effect._asdict()
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _print_ranked(results)
    if effect is not None:
        print(
            f"note: int8 against float32, one view of the first video: feature cosine {effect.cosine:.5f}, scores "
            f"within {100 * effect.score:.2f} %, {'the same' if effect.same_top else 'another'} best label",
            file=sys.stderr,
        )
    if untrained:
        print(UNTRAINED_NOTE, file=sys.stderr)
    report_failures(results)
    return 2 if failed else 0


def progress(videos: list[str], unit: str) -> tqdm:
    """Wrap several videos in a progress bar on a terminal; one video gets none."""
    return tqdm(videos, unit=unit, disable=True if len(videos) < 2 else None)


def encode_labels(model: VideoClassifier, labels: list[str]) -> Tensor:
    """Encode the label set once for all videos, [C, d], showing progress on a terminal."""
    with tqdm(total=len(set(labels)) * len(TEMPLATES), unit="prompts", desc="labels", disable=None, delay=2) as bar:
        return model.class_features(labels, progress=bar.update)


def report_failures(results: list[dict[str, Any]]) -> None:
    """Print one line on standard error for each video that failed."""
    for result in results:
        if result["error"]:
            print(f"mote-fast: error: {result['error']}", file=sys.stderr)


def _int8_effect(model: VideoClassifier, results: list[dict[str, Any]], classes: Tensor) -> Int8Effect | None:
    """Compare with float32 on the first video that could be read."""
    readable = [result["video"] for result in results if not result["error"]]
    return int8_effect(model, readable[0], classes) if readable else None


def _print_ranked(results: list[dict[str, Any]]) -> None:
    for result in results:
        if result["error"]:
            continue
        print(result["video"])
        for prediction in result["predictions"]:
            print(f"  {100 * prediction['score']:6.2f} %  {prediction['label']}")
