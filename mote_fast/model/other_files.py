"""Files of PyTorch that are taken for models: what to do with each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mote_fast.errors import CheckpointError
from mote_fast.runtime.weights import models_in


def refuse_other_content(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint of a training run, a state dict alone, and the weights of a CLIP alone.

    Args:
        content: the content of a file that should be a released checkpoint.
        path: the file.

    Raises:
        CheckpointError: it is one of them; the message says what to load instead.
    """
    names = [str(name) for name in content]
    if {"progress", "optimizer", "model"} <= {*names}:
        models = " or ".join(map(str, models_in(path.absolute().parent.parent)))
        raise CheckpointError(
            f"{path}: a checkpoint that a training run continues from, without the model's configuration; load "
            f"{models or 'the folder best or model, which the run writes beside its checkpoints'}"
        )
    if any(name.startswith("clip.model.") for name in names):
        raise CheckpointError(
            f"{path}: a state dict alone, which does not tell the model's architecture; write folders with "
            "clf.save(FOLDER), or build the same model with create_model and give it the state dict"
        )
    if any(name.startswith("visual.") for name in names):
        raise CheckpointError(
            f"{path}: weights of a CLIP alone, without a video head; pass them as clip_pretrained= of create_model "
            "(header='mean' needs no training)"
        )
