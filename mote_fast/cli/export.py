"""``mote-fast export``: writes a model as ONNX or PyTorch graphs that run without this library."""

from __future__ import annotations

import argparse
from pathlib import Path

from mote_fast.cli import inputs, outputs
from mote_fast.exports.write import check_export_folder, export
from mote_fast.runtime.text import visible


def run(arguments: argparse.Namespace) -> int:
    """Load the model on the CPU and export it, with the features of the class names if there are any. Returns 0."""
    folder = Path(arguments.folder)
    check_export_folder(folder)
    named = any(value is not None for value in (arguments.labels, arguments.labels_file, arguments.label_set))
    labels = inputs.labels_of(arguments) if named else None
    model = inputs.whole_model(arguments)
    export(model, folder, arguments.format, arguments.part, labels=labels)
    outputs.write(visible(f"{arguments.model} -> {folder}"))
    return 0
