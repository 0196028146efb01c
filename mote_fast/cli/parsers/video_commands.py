"""Arguments of the commands about some videos: classify and embed."""

from __future__ import annotations

from typing import Any

from mote_fast.cli import options


def add_commands(commands: Any) -> None:
    """Register the commands."""
    _add_classify(commands)
    _add_embed(commands)


def _add_classify(commands: Any) -> None:
    parser = commands.add_parser("classify", help="rank labels for videos", description="Rank labels for videos.")
    options.add_videos(parser, views="3x1")
    options.add_labels(parser)
    options.add_value(parser, "--topk", 5, "labels to print per video", "K", least=1)
    options.add_forms(parser, "write results there as they come; .json, .jsonl, .csv or .txt")
    options.add_model(parser, encodes_labels=True)
    options.add_prompts(parser)
    options.set_run(parser, "classify")


def _add_embed(commands: Any) -> None:
    parser = commands.add_parser(
        "embed", help="write one embedding per video", description="Write one embedding per video."
    )
    options.add_videos(parser, views="1x1")
    options.add_forms(parser, "write embeddings there; .safetensors, .npy, .json, .jsonl or .csv")
    options.add_model(parser)
    options.set_run(parser, "embed")
