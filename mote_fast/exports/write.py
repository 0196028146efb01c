"""``mote_fast.export``: writes a model's graphs into a folder that runs without CLIP's code."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from mote_fast.errors import CheckpointError, ConfigError
from mote_fast.exports.export_choices import Format, GraphName
from mote_fast.exports.graph_files import OPSET, parameter_bytes, write_graph
from mote_fast.exports.graphs import Graph, graphs_of
from mote_fast.exports.parity import measure
from mote_fast.exports.record import (
    CLASSES_FILE,
    RECORD_FILE,
    ExportRecord,
    FileRecord,
    GraphRecord,
    data_file,
    graph_file,
)
from mote_fast.exports.runners import open_graph
from mote_fast.head.video_head import MAX_FRAMES
from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.checks import check_choice
from mote_fast.runtime.environment import machine
from mote_fast.runtime.files import staged_folder
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.transfer import sha256_of
from mote_fast.version import __version__

log = logging.getLogger(__name__)

# What the record names the versions of, for each format.
_PACKAGES = {"onnx": ("torch", "onnx", "onnxscript", "onnxruntime"), "pt2": ("torch",), "aoti": ("torch",)}


def export(
    model: VideoClassifier,
    folder: str | Path,
    format: Format = "onnx",
    part: GraphName | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> None:
    """Write a model's graphs into a folder, which ``mote_fast.load_exported`` reads; docs/export.md is the guide.

    The graphs take any number of images, views and classes, and 1 to 77 frames a view, which is as many as the head
    has positions. Each is compared with the model on random inputs before the folder appears, complete or not at all.

    - tower: ``pixels [N, 3, S, S] -> features [N, d]``, without the text tower;
    - head: ``features [V, T, d], classes [C, d] -> scores [C]``, folded, for the V views of one video;
    - whole: ``pixels [V, T, 3, S, S], classes [C, d] -> scores [C]``, in one call; frames that views share are encoded
      for each of them.

    Args:
        model: a float32 model on the CPU, not in training mode.
        folder: path of the folder; an earlier export there is replaced.
        format: "onnx" for ONNX Runtime and others; "pt2" for ``torch.export.load``; "aoti", compiled by PyTorch's
            AOTInductor for this machine and this PyTorch alone, which takes a C++ compiler.
        part: the graph to write; None writes the tower and the head.
        labels: class names whose features are stored beside the graphs; None takes the model's own, ``classes``, if it
            records any.

    Raises:
        ConfigError: an argument is unknown, or the model cannot be exported as it is.
        BackendError: a package or the compiler is missing, an operator of the model cannot be exported, or the result
            would differ from the model by over 1e-5.
        CheckpointError: the folder holds something else, or cannot be written.
        LabelError: the labels are empty, or one of them is blank.
    """
    folder = Path(folder)
    check_choice("format", format, Format)
    if part is not None:
        check_choice("part", part, GraphName)
    _check_model(model)
    check_export_folder(folder)
    labels = model.classes if labels is None else labels
    classes = None if labels is None else model.class_features(labels)
    graphs = graphs_of(model, ("tower", "head") if part is None else (part,))
    with staged_folder(folder, CheckpointError) as place:
        records = {name: _write(model, name, graph, place, format) for name, graph in graphs.items()}
        if classes is not None:
            np.save(place / CLASSES_FILE, classes.float().numpy())
        compiled = format == "aoti"
        record = ExportRecord(
            format=format,
            frames=model.frames,
            max_frames=MAX_FRAMES,
            embed_dim=model.head.embed_dim,
            preprocessing=model.clip.config.preprocessing,
            crops_along=model.crops_along,
            pixel_aspect=model.pixel_aspect,
            logit_scale=model.clip.logit_scale.item(),
            caution=model.caution,
            graphs={**records},
            files={path.name: _file_record(path) for path in sorted(place.iterdir())},
            labels=None if labels is None else list(labels),
            opset=OPSET if format == "onnx" else None,
            machine=machine() if compiled else None,
            instruction_set=torch.backends.cpu.get_cpu_capability() if compiled else None,
            versions={"mote_fast": __version__} | {each: import_module(each).__version__ for each in _PACKAGES[format]},
        )
        (place / RECORD_FILE).write_text(to_json(record.to_json(), indent=2) + "\n", encoding="utf-8")


def check_export_folder(folder: Path) -> None:
    """Check, before any work is done, that an export may be written to ``folder``.

    Raises:
        CheckpointError: it exists and holds something else than an export.
    """
    try:
        replaceable = not folder.exists() or (
            folder.is_dir() and {each.name for each in folder.iterdir()} <= _members()
        )
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error})") from error
    if not replaceable:
        raise CheckpointError(f"{folder}: exists and holds something else than an export; choose another name")


def _members() -> set[str]:
    """The names of all files that exports have."""
    graphs = {graph_file(name, kind) for name in ("tower", "head", "whole") for kind in ("onnx", "pt2")}
    return graphs | {data_file(name) for name in graphs} | {RECORD_FILE, CLASSES_FILE}


def _check_model(model: VideoClassifier) -> None:
    if model.training:
        raise ConfigError("the model is in training mode; call model.eval() before its export")
    if model.int8 is not None:
        raise ConfigError("an int8 model cannot be exported; load it with dtype=torch.float32")
    if model.device.type != "cpu" or model.clip.dtype != torch.float32:
        raise ConfigError(
            f"exports are made of float32 models on the CPU, not of {model.clip.dtype} on {model.device}; load the "
            "model with device='cpu', dtype=torch.float32"
        )
    if model.head.fold().experts > 1:
        raise ConfigError(
            f"a head with aggregation={model.head.config.aggregation!r} has no folded form to export; call "
            "model.head.set_inference(aggregation='merge')"
        )


def _write(model: VideoClassifier, name: GraphName, graph: Graph, place: Path, file_format: Format) -> GraphRecord:
    path = place / graph_file(name, file_format)
    log.info("exporting the graph %s as %s ...", name, file_format)
    write_graph(graph, path, file_format)
    written = GraphRecord(path.name, graph.inputs, graph.outputs, parameter_bytes(graph), 0.0)
    return replace(written, parity=measure(model, name, graph, open_graph(place, written, file_format)))


def _file_record(path: Path) -> FileRecord:
    return FileRecord(path.stat().st_size, sha256_of(path))
