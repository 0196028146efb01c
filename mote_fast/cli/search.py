"""``mote-fast search``: find the videos of an index by words, or by a video."""

from __future__ import annotations

import argparse

from mote_fast.cli import inputs, outputs
from mote_fast.errors import ConfigError
from mote_fast.search.rows import Hit
from mote_fast.search.video_index import Index


def run(arguments: argparse.Namespace) -> int:
    """Print the best videos. Returns 0."""
    if (arguments.query is None) == (arguments.like is None):
        raise ConfigError('give what to search for: "WORDS", or --like VIDEO')
    if arguments.like is not None and arguments.templates is not None:
        raise ConfigError("--templates goes with words, not with --like")
    index = Index(arguments.index)
    arguments.videos = [] if arguments.like is None else [arguments.like]
    model = inputs.model_of(arguments)
    own = index.record.embedding
    model.pixel_aspect, model.crops_along = own.pixel_aspect, own.crops_along
    templates = None if arguments.templates is None else model.prompts.templates
    hits = index.search(
        arguments.query,
        model,
        like=arguments.like,
        topk=arguments.topk,
        templates=templates,
        approximate=arguments.approximate,
    )
    document = {
        "index": arguments.index,
        "query": arguments.query,
        "like": arguments.like,
        "approximate": arguments.approximate,
        "checkpoint": arguments.checkpoint or arguments.model,
        "caution": model.caution,
        "hits": [hit.to_dict() for hit in hits],
    }
    outputs.show(arguments, document, [_line(hit) for hit in hits])
    return 0


def _line(hit: Hit) -> str:
    if hit.start is None or hit.end is None:
        return f"{hit.score:7.4f}  {hit.id}"
    return f"{hit.score:7.4f}  {hit.path or hit.id}  {hit.start:.2f} to {hit.end:.2f} s"
