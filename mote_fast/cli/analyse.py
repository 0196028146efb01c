"""``mote-fast analyse``: measures and plots the behaviour of each expert of a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from mote_fast.analysis.attention_maps import attention_csv, attention_maps
from mote_fast.analysis.class_accuracy import ClassAccuracy, class_accuracies, class_accuracy_csv, most_divided
from mote_fast.analysis.expert_accuracy import ExpertAccuracy, expert_accuracies, expert_accuracy_csv
from mote_fast.analysis.plots.draw_attention import draw_attention
from mote_fast.analysis.plots.draw_classes import draw_classes
from mote_fast.analysis.plots.draw_experts import draw_experts
from mote_fast.analysis.plots.draw_similarity import draw_similarity
from mote_fast.analysis.predictions import predict_variants
from mote_fast.analysis.similarity import expert_similarity, similarity_csv
from mote_fast.analysis.variants import MERGED, Variant, expert_variants, tower_alone
from mote_fast.cli import inputs, options, outputs
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.items import UNLABELLED, VideoItem
from mote_fast.data.loading.cpu_loader import DatasetDecoder
from mote_fast.data.loading.decode_pool import DecodePool
from mote_fast.data.loading.faults import Failure
from mote_fast.data.plan import ONE_VIEW
from mote_fast.errors import ConfigError, UndecodableVideoError
from mote_fast.evaluation.predict import Predictions
from mote_fast.evaluation.protocol_names import ProtocolName
from mote_fast.evaluation.splits import Split, read_split
from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run_experts(arguments: argparse.Namespace) -> int:
    """Accuracy of every variant on a close-set and a zero-shot list. Returns 0, or 3 if a video failed."""
    close = inputs.split_of(arguments, "close_set")
    zero = inputs.split_of(arguments, "zero_shot")
    outputs.prepare_drawing(arguments, arguments.analysis)
    model = inputs.whole_model(arguments)
    variants = [*expert_variants(model.head), tower_alone(model.head)]
    judged = [(model, variants), *_other_models(arguments, variants)]
    on_close, on_zero = (
        _predict_all(arguments, judged, close, "closeset"),
        _predict_all(arguments, judged, zero, "zeroshot"),
    )
    rows = expert_accuracies(on_close, on_zero, arguments.score)
    document = {
        "close_set": close.name,
        "zero_shot": zero.name,
        "score": arguments.score,
        "variants": [_accuracy_entry(row) for row in rows],
    }
    lines = [f"{'close-set':>10}{'zero-shot':>11}   top-1, %"]
    lines += [f"{row.close_set.top1:10.2f}{row.zero_shot.top1:11.2f}   {row.variant}" for row in rows]
    failures = [*on_close[MERGED].failures, *on_zero[MERGED].failures]
    figure = draw_experts(rows, printable(close.name), printable(zero.name))
    return _finish(arguments, figure, expert_accuracy_csv(rows), document, lines, failures)


def run_classes(arguments: argparse.Namespace) -> int:
    """Accuracy of the merged model and of each expert on every class. Returns 0, or 3 if a video failed."""
    split = read_split(arguments.list, arguments.labels_file, arguments.root)
    outputs.prepare_drawing(arguments, arguments.analysis)
    model = inputs.whole_model(arguments)
    judged = _predict(arguments, model, expert_variants(model.head), split, "zeroshot")
    failures = judged[MERGED].failures
    if len(failures) == len(split.items):
        raise ConfigError(f"{split.name}: none of its videos could be read; the first: {failures[0].reason}")
    rows = class_accuracies(judged, split.class_names, arguments.score)
    shown = most_divided(rows, arguments.shown)
    document = {
        "list": split.name,
        "score": arguments.score,
        "classes": [_class_entry(row) for row in rows],
        "shown": [row.label for row in shown],
    }
    lines = [" ".join(f"{name:>9}" for name in rows[0].top1) + "   top-1, %"]
    lines += [" ".join(f"{value:9.2f}" for value in row.top1.values()) + f"   {row.name}" for row in shown]
    title = f"{printable(split.name)}: the {len(shown)} of {len(rows)} classes on which the experts differ most"
    return _finish(arguments, draw_classes(shown, title), class_accuracy_csv(rows), document, lines, failures)


def run_similarity(arguments: argparse.Namespace) -> int:
    """Affinity of the features of the merged model and of each expert. Returns 0, or 3 if a video failed."""
    items = inputs.some_videos(arguments.list, arguments.root, arguments.count)
    outputs.prepare_drawing(arguments, arguments.analysis)
    model = inputs.whole_model(arguments)
    variants = expert_variants(model.head)
    with inputs.open_loader(arguments, model, items, inputs.views_of(arguments, "fewshot")) as (loader, progress):
        found = expert_similarity(model, variants, loader, progress=progress)
    output = found.output.tolist()
    document = {
        "variants": list(found.variants),
        "videos": found.videos,
        "output": output,
        "temporal": found.temporal.tolist(),
    }
    lines = [" ".join(f"{name:>9}" for name in found.variants) + "   output features"]
    lines += [
        " ".join(f"{value:9.4f}" for value in line) + f"   {name}"
        for name, line in zip(found.variants, output, strict=True)
    ]
    return _finish(arguments, draw_similarity(found), similarity_csv(found), document, lines, found.failures)


def run_attention(arguments: argparse.Namespace) -> int:
    """Attention maps of one video's frames. Returns 0."""
    outputs.prepare_drawing(arguments, arguments.analysis)
    model = inputs.whole_model(arguments)
    variants = [*expert_variants(model.head), tower_alone(model.head)]
    dataset = VideoDataset(
        [VideoItem(arguments.video, UNLABELLED)], inputs.recipe_of(model, ONE_VIEW), decode_backend=arguments.decode
    )
    (frames,) = _decode(dataset)
    with tqdm(total=len(frames), unit="frames", disable=None, delay=2) as bar:
        found = attention_maps(model.clip, variants, frames, progress=bar.update)
    ranges = {name: (maps.min().item(), maps.max().item()) for name, maps in found.maps.items()}
    document = {
        "video": arguments.video,
        "variants": [{"variant": name, "least": least, "most": most} for name, (least, most) in ranges.items()],
    }
    lines = [f"{least:7.4f} to {most:7.4f}   {name}" for name, (least, most) in ranges.items()]
    figure = draw_attention(found, f"{printable(Path(arguments.video).name)}: cosine of output feature and patches")
    return _finish(arguments, figure, attention_csv(found), document, lines, [])


def _decode(dataset: VideoDataset) -> Tensor:
    """Decode the only video of a data set in a watched process: uint8 [V, T, 3, S, S]."""
    path, pixels = dataset.items[0].path, torch.empty(dataset.recipe.clip_shape, dtype=torch.uint8)
    with closing(DecodePool(DatasetDecoder(dataset), dataset.recipe, 1, options.TIME_LIMIT)) as pool:
        failure = pool.load(0, path, (0, 0), pixels)
    if isinstance(failure, Failure):
        raise UndecodableVideoError(path, failure.reason)
    return pixels


def _other_models(
    arguments: argparse.Namespace, variants: Sequence[Variant]
) -> list[tuple[VideoClassifier, list[Variant]]]:
    """Load the models of ``--beside``; their names are none of the variants'."""
    names = [name for name, _ in arguments.beside]
    for name in names:
        if name in {variant.name for variant in variants} or names.count(name) > 1:
            raise ConfigError(f"--beside {name}: another variant has this name")
    found: list[tuple[VideoClassifier, list[Variant]]] = []
    for name, path in arguments.beside:
        # --model names the first model.
        given = {*getattr(arguments, "given", ())} - {"model"}
        model = inputs.model_of(argparse.Namespace(**{**vars(arguments), "checkpoint": path, "given": given}))
        found.append((model, [Variant(name, model.head.features)]))
    return found


def _predict(
    arguments: argparse.Namespace,
    model: VideoClassifier,
    variants: Sequence[Variant],
    split: Split,
    protocol: ProtocolName,
) -> Mapping[str, Predictions]:
    classes = inputs.encode_labels(model, split.class_names)
    views = inputs.views_of(arguments, protocol)
    with inputs.open_loader(arguments, model, split.items, views, title=split.name) as (loader, progress):
        return predict_variants(model, variants, loader, classes, progress=progress)


def _predict_all(
    arguments: argparse.Namespace,
    models: Sequence[tuple[VideoClassifier, Sequence[Variant]]],
    split: Split,
    protocol: ProtocolName,
) -> Mapping[str, Predictions]:
    found: dict[str, Predictions] = {}
    for model, variants in models:
        found |= _predict(arguments, model, variants, split, protocol)
    return found


def _finish(
    arguments: argparse.Namespace,
    figure: Figure,
    csv: str,
    document: Mapping[str, Any],
    lines: Sequence[str],
    failures: Sequence[Failure],
) -> int:
    """Write the files of an analysis, named after it, and print its numbers. Returns 0, or 3 if a video failed."""
    files = outputs.write_drawing(arguments, arguments.analysis, figure, csv)
    outputs.show(arguments, {**document, "files": files}, [*lines, f"wrote {' and '.join(files)}"])
    return outputs.report_unread(failures)


def _accuracy_entry(row: ExpertAccuracy) -> dict[str, Any]:
    return {
        "variant": row.variant,
        "close_set": row.close_set._asdict(),
        "zero_shot": row.zero_shot._asdict(),
    }


def _class_entry(row: ClassAccuracy) -> dict[str, Any]:
    return {"class": row.label, "name": row.name, "videos": row.videos, "top1": dict(row.top1), "spread": row.spread}
