"""``mote-fast eval``: accuracies of a model on lists of videos, by the protocols of the paper."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torch import distributed as dist
from tqdm import tqdm

from mote_fast.cli.classify import encode_labels
from mote_fast.cli.options import UNTRAINED_NOTE, add_model_options, is_untrained, model_of
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.frame_folders import FRAME_TEMPLATE
from mote_fast.data.loaders import LoaderBackend, make_loader
from mote_fast.data.loading.order import Shard
from mote_fast.data.loading.video_loader import LoaderOptions, VideoLoader
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError
from mote_fast.evaluation.evaluate import DEFAULT_VIEWS, Evaluation, ProtocolName, check_protocol, evaluate
from mote_fast.evaluation.prediction_table import check_parquet
from mote_fast.evaluation.report import accuracy_lines, result_document, to_json, write_report
from mote_fast.evaluation.splits import Split, VideoPool, pool_splits, read_split
from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.distributed import World, joined
from mote_fast.runtime.environment import best_device
from mote_fast.runtime.files import make_folder

_DESCRIPTION = """\
Evaluate a model by a protocol of the paper. Several lists are splits: the report has each one's accuracies, their mean
and deviation. Under torchrun the processes share the videos, each decoded once; the result is the same for any number
of them.

    mote-fast eval --protocol zeroshot --list ucf_1.txt ucf_2.txt ucf_3.txt --labels-file ucf.csv --output results/ucf
    torchrun --nproc-per-node 2 -m mote_fast.cli eval --protocol closeset --list k400_val.txt --labels-file k400.csv
"""


def add_command(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "eval",
        help="accuracies by the protocols of the paper",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    views = ", ".join(f"{protocol} {default}" for protocol, default in DEFAULT_VIEWS.items())
    parser.add_argument("--protocol", choices=get_args(ProtocolName), required=True, help="what is measured")
    group = parser.add_argument_group("data")
    group.add_argument(
        "--list",
        nargs="+",
        required=True,
        metavar="FILE",
        dest="lists",
        help="lists of videos with labels, one for each split; or a folder with a sub-folder for each class",
    )
    group.add_argument(
        "--labels-file", nargs="+", default=[], metavar="FILE", help="class names: one file, or one for each list"
    )
    group.add_argument("--root", default="", metavar="FOLDER", help="what the lists' paths are relative to")
    group.add_argument("--views", metavar="CxC", help=f"clips x crops (default: {views})")
    group.add_argument("--dense", action="store_true", help="sample frames densely, from a window of the video")
    group.add_argument("--batch-size", type=int, default=8, help="videos in a batch of one process (default 8)")
    group.add_argument("--workers", type=int, default=4, help="processes that decode, for each process (default 4)")
    group.add_argument("--loader", choices=get_args(LoaderBackend), default="auto", help="who decodes (default auto)")
    group.add_argument(
        "--frame-template",
        default=FRAME_TEMPLATE,
        metavar="NAME",
        help="image names in folders of extracted frames (default %(default)s)",
    )
    results = parser.add_argument_group("results")
    results.add_argument("--dataset", metavar="NAME", help="name in the report (default: of the lists)")
    results.add_argument(
        "--output", metavar="FOLDER", help="write result.json, report.md, per_class.csv and predictions.parquet there"
    )
    results.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    results.add_argument("--no-cache", action="store_true", help="neither read nor write class features on disk")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate on every process that torchrun started; the first writes and prints. Returns 0, or 2 if any failed."""
    with _processes(arguments.device) as world:
        arguments.device = str(world.device)
        splits = _splits_of(arguments)
        views = Views.parse(arguments.views or DEFAULT_VIEWS[arguments.protocol])
        if arguments.output is not None:
            check_parquet()
            if world.leads:
                make_folder(Path(arguments.output))
        started = time.perf_counter()
        evaluation = _evaluate(arguments, splits, views, world)
        if world.leads:
            facts = {
                "dataset": arguments.dataset or "+".join(split.name for split in splits),
                "checkpoint": arguments.checkpoint,
                "untrained": is_untrained(arguments),
                "views": f"{views.clips}x{views.crops}",
                "dtype": arguments.dtype,
                "processes": world.size,
                "seconds": round(time.perf_counter() - started, 3),
            }
            _report(arguments, evaluation, facts)
        # A process that ends with status 2 makes torchrun stop the others: not before the first has written.
        world.wait()
    return 2 if evaluation.failures else 0


def _processes(device: str) -> contextlib.AbstractContextManager[World]:
    """Join the processes that torchrun started; without it this process is alone, on any device."""
    if dist.is_torchelastic_launched():
        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"--device {device}: under torchrun each process has its own; use auto, cpu or cuda")
        return joined(device)
    try:
        return contextlib.nullcontext(World(0, 1, torch.device(best_device() if device == "auto" else device)))
    except RuntimeError as error:
        raise ConfigError(f"--device {device}: {str(error).splitlines()[0]}") from error


def _splits_of(arguments: argparse.Namespace) -> list[Split]:
    lists: Sequence[str] = arguments.lists
    labels: Sequence[str | None] = arguments.labels_file or [None]
    if len(labels) not in (1, len(lists)):
        raise ConfigError(f"--labels-file: give one file, or one for each of the {len(lists)} lists; got {len(labels)}")
    per_list = labels if len(labels) == len(lists) else [labels[0]] * len(lists)
    splits = [read_split(source, names, arguments.root) for source, names in zip(lists, per_list, strict=True)]
    check_protocol(arguments.protocol, splits)
    return splits


def _evaluate(arguments: argparse.Namespace, splits: list[Split], views: Views, world: World) -> Evaluation:
    pool = pool_splits(splits)
    model = model_of(arguments)
    if arguments.no_cache:
        model.feature_cache = None
    class_features = [_class_features(model, names, world) for names in pool.class_names]
    share = len(range(world.rank, len(pool.items), world.size))
    shown = None if world.leads else True
    with (
        contextlib.closing(_loader_of(arguments, pool, views, model, world)) as loader,
        tqdm(total=share, unit="videos", disable=shown) as bar,
    ):
        return evaluate(model, loader, pool, splits, class_features, arguments.protocol, progress=bar.update)


def _class_features(model: VideoClassifier, names: Sequence[str], world: World) -> Tensor:
    """Encode a label set on the first process, float32 [C, d]; the others get its numbers."""
    features = torch.empty(len(names), model.clip.embed_dim)
    if world.leads:
        features.copy_(encode_labels(model, list(names)))
    world.share([features])
    return features


def _loader_of(
    arguments: argparse.Namespace, pool: VideoPool, views: Views, model: VideoClassifier, world: World
) -> VideoLoader:
    clip = model.clip
    recipe = ClipRecipe(
        frames=model.frames,
        size=clip.image_size,
        views=views,
        dense=arguments.dense,
        mean=clip.config.mean,
        std=clip.config.std,
    )
    dataset = VideoDataset(pool.items, recipe, decode_backend=arguments.decode, frame_template=arguments.frame_template)
    options = LoaderOptions(
        arguments.batch_size,
        training=False,
        shard=Shard(world.rank, world.size),
        workers=arguments.workers,
        device=world.device,
        dtype=clip.dtype,
    )
    return make_loader(dataset, options, arguments.loader)


def _report(arguments: argparse.Namespace, evaluation: Evaluation, facts: dict[str, Any]) -> None:
    document = result_document(evaluation, facts)
    if arguments.output is not None:
        write_report(Path(arguments.output), evaluation, document)
    print(to_json(document) if arguments.json else "\n".join(accuracy_lines(document)))
    if evaluation.failures:
        # The log named each when it failed; so does the report.
        print(f"mote-fast: error: {len(evaluation.failures)} videos could not be read", file=sys.stderr)
    if is_untrained(arguments):
        print(UNTRAINED_NOTE, file=sys.stderr)
