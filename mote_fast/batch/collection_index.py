"""A search index of the embeddings of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mote_fast.batch.run_folder import RunFolder
from mote_fast.errors import ConfigError, ListError, one_line
from mote_fast.model.video_model import VideoModel
from mote_fast.runtime.reading import expanded
from mote_fast.search.index_folder import IndexFolder
from mote_fast.search.index_model import embedding_of, model_fingerprint
from mote_fast.search.index_record import RECORD_FILE, Embedding, IndexRecord
from mote_fast.search.rows import IndexRow
from mote_fast.search.video_index import Index

# Rows that are added at once.
_ADDED = 2**14


def described_index(model: VideoModel, views: str) -> dict[str, Any]:
    """Return what an index says of embeddings by a model, as JSON values; a run records it."""
    name = model.clip.config.name or "a model without a name"
    record = IndexRecord(name, model_fingerprint(model), model.clip.embed_dim, embedding_of(model, views))
    return {"model": name, "fingerprint": record.fingerprint, "dimension": record.dimension, **asdict(record.embedding)}


def index(output: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Index:
    """Put the embeddings of a run into a search index; those that it has stay, so that it may be called again.

    Args:
        output: folder of a run of ``embed``, which may still go on.
        folder: of the index: new, empty, or an index of the same model.

    Returns:
        The index.

    Raises:
        ConfigError: the run has no embeddings, or the index belongs to another model or cannot be written.
        ListError: the folder holds no run, or the run or the index is damaged.
    """
    run, path = RunFolder(expanded(output)), expanded(folder)
    record = _record(run)
    if not os.path.lexists(path / RECORD_FILE):
        IndexFolder.create(path, record)
    found = Index(path)
    own = found.record
    if (own.fingerprint, own.dimension, own.embedding) != (record.fingerprint, record.dimension, record.embedding):
        theirs, ours = (
            f"{each.model} (weights {each.fingerprint[:12]}, {each.embedding.views} views)" for each in (own, record)
        )
        raise ConfigError(
            f"{path}: has videos embedded by {theirs}, and {run.path} by {ours}; give another folder for the index"
        )
    rows: list[IndexRow] = []
    vectors: list[np.ndarray] = []

    def add() -> None:
        if rows:
            found.add(rows, torch.from_numpy(np.concatenate(vectors)), existing="skip")
            rows.clear()
            vectors.clear()

    for table in run.tables(["id", "path", "embedding", "error_kind"]):
        sound = table.filter(table.column("error_kind").is_null())
        column = sound.column("embedding").combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        vectors.append(flat.reshape(-1, record.dimension))
        pairs = zip(sound.column("id").to_pylist(), sound.column("path").to_pylist(), strict=True)
        rows += [IndexRow(name, path) for name, path in pairs]
        if len(rows) >= _ADDED:
            add()
    add()
    return found


def _record(run: RunFolder) -> IndexRecord:
    values = run.record.request.get("index")
    if not isinstance(values, Mapping):
        raise ConfigError(f"{run.path}: has no embeddings; give the output of an embedding run")
    values = dict(values)
    try:
        model, fingerprint, dimension = (values.pop(name) for name in ("model", "fingerprint", "dimension"))
        return IndexRecord(model, fingerprint, dimension, Embedding(**values))
    except (ConfigError, KeyError, TypeError) as error:
        raise ListError(f"{Path(run.path)}: its record is damaged ({one_line(error)})") from error
