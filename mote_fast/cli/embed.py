"""``mote-fast embed``: one embedding per video."""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mote_fast.cli import inputs
from mote_fast.cli.result_writers import Layout, Record, writers_of
from mote_fast.cli.videos import judged_each, videos_of, write_each
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError
from mote_fast.model.results import VideoEmbedding
from mote_fast.runtime.files import staged, write_bytes
from mote_fast.runtime.text import printable
from mote_fast.runtime.weights import save_tensors


class VectorWriter:
    """Collects embeddings, and writes them to a file of vectors in the end.

    A safetensors file has one float32 vector for each video, named by its path. A NumPy file has float32 [N, d], a row
    for each video in their order; that of a video that failed is NaN.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._width = 0
        self._found: list[tuple[str, list[float] | None]] = []

    def begin(self, facts: Mapping[str, Any], columns: Sequence[str] = ()) -> None:
        """See ``Writer``; there is a column for each number."""
        self._width = len(columns)

    def add(self, record: Record) -> None:
        """See ``Writer``."""
        self._found.append((record["video"], record["embedding"]))

    def finish(self, further: Mapping[str, Any]) -> None:
        """See ``Writer``; an interrupt before the first video leaves an earlier file as it is."""
        if not self._found:
            return
        if self.path.suffix.lower() == ".npy":
            rows = [[math.nan] * self._width if vector is None else vector for _, vector in self._found]
            content = io.BytesIO()
            np.save(content, np.array(rows, np.float32).reshape(-1, self._width))
            write_bytes(self.path, content.getvalue())
            return
        vectors = {printable(name): torch.tensor(vector) for name, vector in self._found if vector is not None}
        with staged(self.path) as part:
            save_tensors(vectors, part)


def run(arguments: argparse.Namespace) -> int:
    """Embed each video; a bad video is reported and the others are processed. Returns 0, or 3 if any failed."""
    if arguments.output is None and arguments.form is None:
        raise ConfigError("say where the embeddings go: --output FILE, or --json, --jsonl or --csv")
    Views.parse(arguments.views)
    writers = writers_of(arguments, _LAYOUT, {".safetensors": VectorWriter, ".npy": VectorWriter})
    videos = videos_of(arguments)
    model = inputs.model_of(arguments)
    model.pixel_aspect, model.crops_along = arguments.pixel_aspect, arguments.crops_along

    def embed(video: str) -> list[float]:
        return model.embed(video, views=arguments.views).tolist()

    def embed_each(several: Sequence[str], workers: int) -> Generator[VideoEmbedding, None, None]:
        return model.stream_embeddings(several, views=arguments.views, workers=workers)

    def value(result: VideoEmbedding) -> list[float] | None:
        return None if result.embedding is None else result.embedding.tolist()

    facts = {
        "checkpoint": arguments.checkpoint or arguments.model,
        "caution": model.caution,
        "views": arguments.views,
        "crops_along": arguments.crops_along,
        "loader": inputs.loader_of(arguments, model),
    }
    for writer in writers:
        writer.begin(facts, [str(at) for at in range(model.clip.embed_dim)])
    return write_each(videos, judged_each(model, videos.present, embed, embed_each, value), "embedding", writers)


def _rows(record: Record) -> list[list[object]]:
    return [[record["video"], record["error"] or "", *(record["embedding"] or ())]]


# Text has no use for vectors.
_LAYOUT = Layout(lambda record: [], _rows, ("video", "error"))
