"""``mote-fast embed``: one embedding per video."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mote_fast.cli.classify import progress, report_failures
from mote_fast.cli.options import add_model_options, add_video_argument, model_of
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError, VideoError


def add_command(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("embed", help="write one embedding per video", description=__doc__)
    add_video_argument(parser, views="1x1")
    parser.add_argument(
        "--output", metavar="FILE", help="safetensors file: one float32 vector per video, named by its path"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document with the vectors")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Embed each video; a bad one is reported and the rest go on. Returns 0, or 2 when any failed."""
    if arguments.output is None and not arguments.json:
        raise ConfigError("say where the embeddings go: --output FILE, or --json for standard output")
    Views.parse(arguments.views)
    model = model_of(arguments)
    vectors: dict[str, torch.Tensor] = {}
    results: list[dict[str, Any]] = []
    for video in progress(arguments.videos, "videos"):
        try:
            vectors[video] = model.embed(video, views=arguments.views).cpu()
            results.append({"video": video, "error": None})
        except VideoError as error:
            results.append({"video": video, "error": str(error)})
    if arguments.output is not None:
        _save(vectors, Path(arguments.output))
    if arguments.json:
        for result in results:
            vector = vectors.get(result["video"])
            result["embedding"] = None if vector is None else vector.tolist()
        print(json.dumps({"views": arguments.views, "videos": results}, ensure_ascii=False))
    else:
        print(f"{arguments.output}: {len(vectors)} embeddings of width {model.clip.embed_dim}")
    report_failures(results)
    return 2 if len(vectors) < len(set(arguments.videos)) else 0


def _save(vectors: dict[str, torch.Tensor], path: Path) -> None:
    try:
        save_file(vectors, path)
    except OSError as error:
        raise ConfigError(f"--output {path}: cannot be written ({error})") from error
