"""``mote-fast eval``: accuracies of a model on lists of videos, by the protocols of the paper.

Several lists are treated as splits: the report has the accuracies of each, their mean and deviation. Under torchrun the
processes divide the videos; each video is decoded once, and the result is the same for any number of processes.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from mote_fast.cli import eval_localization, inputs, outputs
from mote_fast.cli.eval_config import apply_configs
from mote_fast.data.loading.order import Replica
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError
from mote_fast.evaluation.cpu_cost import frame_cost
from mote_fast.evaluation.evaluate import Evaluation, check_protocol, evaluate
from mote_fast.evaluation.prediction_table import check_parquet
from mote_fast.evaluation.protocol_names import LOCALIZATION
from mote_fast.evaluation.report import REPORT_FILES, accuracy_lines, result_document, write_report
from mote_fast.evaluation.splits import Split, mix_splits, pool_splits, read_split
from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.distributed import ProcessGroup, joined
from mote_fast.runtime.files import make_folder

log = logging.getLogger(__name__)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate on all processes; the first one writes and prints. Returns 0, or 3 if any video failed."""
    if arguments.protocol == LOCALIZATION:
        return eval_localization.run(arguments)
    apply_configs(arguments)
    with processes(arguments) as world:
        evaluation, document = evaluate_lists(arguments, world)
        if world.leads:
            outputs.show(arguments, document, accuracy_lines(document))
            outputs.report_unread(evaluation.failures)
        # torchrun stops the others when one ends with another status than 0, so all wait until the first has written.
        world.wait()
    return outputs.SOME_FAILED if evaluation.failures else 0


def evaluate_lists(arguments: argparse.Namespace, world: ProcessGroup) -> tuple[Evaluation, dict[str, Any]]:
    """Evaluate the lists of the arguments, and write the report on the first process; return it too."""
    arguments.device = str(world.device)
    splits = splits_of(arguments)
    views = inputs.views_of(arguments, arguments.protocol)
    if arguments.output is not None:
        check_parquet()
        if world.leads:
            make_folder(Path(arguments.output), names=REPORT_FILES)
    started = time.perf_counter()
    model = inputs.model_of(arguments)
    evaluation = _evaluate(arguments, model, splits, views, world)
    facts = {
        "dataset": arguments.dataset or "+".join(split.name for split in splits[: len(arguments.list)]),
        **inputs.facts_of(arguments, model, views, world),
        "seconds": round(time.perf_counter() - started, 3),
    }
    document = result_document(evaluation, facts)
    if arguments.output is not None and world.leads:
        write_report(Path(arguments.output), evaluation, document)
    return evaluation, document


def processes(arguments: argparse.Namespace) -> contextlib.AbstractContextManager[ProcessGroup]:
    """Join the processes that torchrun started; without torchrun there is one process, on any device."""
    if dist.is_torchelastic_launched():
        device = arguments.device
        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"--device {device}: under torchrun each process has its own; use auto, cpu or cuda")
        return joined(device)
    return contextlib.nullcontext(ProcessGroup(0, 1, torch.device(inputs.device_of(arguments))))


def splits_of(arguments: argparse.Namespace) -> list[Split]:
    """Read the lists of the arguments, and check that they fit the protocol."""
    lists: Sequence[str] = arguments.list
    labels: Sequence[str | None] = arguments.labels_file or [None]
    if len(labels) not in (1, len(lists)):
        raise ConfigError(f"--labels-file: give one file, or one for each of the {len(lists)} lists; got {len(labels)}")
    per_list = labels if len(labels) == len(lists) else [labels[0]] * len(lists)
    splits = [read_split(*pair, arguments.root, several_labels=True) for pair in zip(lists, per_list, strict=True)]
    check_protocol(arguments.protocol, splits)
    return [*splits, *mix_splits(splits)] if arguments.protocol == "mixed" else splits


def _evaluate(
    arguments: argparse.Namespace, model: VideoClassifier, splits: list[Split], views: Views, world: ProcessGroup
) -> Evaluation:
    pool = pool_splits(splits)
    replica = Replica(world.rank, world.size)
    frames = len(pool.items) * model.frames * views.clips * views.crops // world.size
    if world.leads and (cost := frame_cost(model, frames)) is not None:
        log.warning("this will take %s", cost)
    class_features = [class_features_on_all(model, names, world) for names in pool.class_names]
    with inputs.open_loader(arguments, model, pool.items, views, replica=replica) as (loader, progress):
        return evaluate(model, loader, pool, splits, class_features, arguments.protocol, progress=progress)


def class_features_on_all(model: VideoClassifier, names: Sequence[str], world: ProcessGroup) -> Tensor:
    """Encode a label set on the first process, float32 [C, d], and send it to the others."""
    features = torch.empty(len(names), model.clip.embed_dim)
    if world.leads:
        features.copy_(inputs.encode_labels(model, names))
    world.share([features])
    return features
