"""``mote-fast embed``: one embedding per video."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mote_fast.cli import inputs, outputs
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError
from mote_fast.runtime.files import check_file, staged
from mote_fast.runtime.text import printable
from mote_fast.runtime.weights import save_tensors


def run(arguments: argparse.Namespace) -> int:
    """Embed each video; a bad video is reported and the others are processed. Returns 0, or 2 if any failed."""
    if arguments.output is None and not arguments.json:
        raise ConfigError("say where the embeddings go: --output FILE, or --json for standard output")
    Views.parse(arguments.views)
    if arguments.output is not None:
        check_file(Path(arguments.output))
    model = inputs.model_of(arguments)
    model.pixel_aspect, model.crops_along = arguments.pixel_aspect, arguments.crops_along

    def embedding(video: str) -> torch.Tensor:
        return model.embed(video, views=arguments.views).cpu()

    results = inputs.judge_each(model, arguments.videos, "embedding", embedding)
    vectors = {each["video"]: each["embedding"] for each in results if not each["error"]}
    if arguments.output is not None:
        with staged(Path(arguments.output)) as part:
            save_tensors({printable(name): vector for name, vector in vectors.items()}, part)
    listed = [{**each, "embedding": None if each["error"] else each["embedding"].tolist()} for each in results]
    lines = [f"{arguments.output}: {len(vectors)} embeddings of width {model.clip.embed_dim}"]
    document = {
        "checkpoint": arguments.checkpoint or arguments.model,
        "caution": model.caution,
        "views": arguments.views,
        "crops_along": arguments.crops_along,
        "videos": listed,
    }
    outputs.show(arguments, document, lines)
    return outputs.report([each["error"] for each in results if each["error"]])
