"""Arguments of the command that answers requests: serve."""

from __future__ import annotations

import os
from typing import Any

from mote_fast.cli import options
from mote_fast.serve.limits import MAX_LABELS, MAX_REQUESTS, MAX_UPLOAD_MEGABYTES, MAX_VIDEO_SECONDS


def add_commands(commands: Any) -> None:
    """Register the command."""
    described = "Serve labels, embeddings and search of uploaded videos over HTTP, and a page for the browser."
    parser = commands.add_parser("serve", help="serve a model over HTTP, with a page", description=described)
    options.add_value(parser, "--host", "127.0.0.1", "address to listen on; 0.0.0.0 for all of this machine")
    options.add_value(parser, "--port", 8000, "port to listen on; 0 takes a free one", least=0, most=65535)
    parser.add_argument("--token-file", metavar="FILE", help="file of a token that requests must bear")
    parser.add_argument("--index", metavar="INDEX", help="folder of an index of videos, which requests may search")
    options.add_labels(parser)
    parser.add_argument("--demo", action="store_true", help="the shipped model, and its videos on the page")
    limits = parser.add_argument_group("limits")
    options.add_value(limits, "--max-upload", float(MAX_UPLOAD_MEGABYTES), "size of a video", "MB", above=0, most=2**20)
    options.add_value(limits, "--max-seconds", float(MAX_VIDEO_SECONDS), "duration of a video", "SECONDS", above=0)
    options.add_value(limits, "--max-labels", MAX_LABELS, "labels of a request", "N", least=1)
    options.add_value(
        limits, "--queue", MAX_REQUESTS, "requests that are uploaded, wait or run at a time", "N", least=1
    )
    options.add_time_limit(limits)
    work = parser.add_argument_group("work")
    options.add_value(work, "--workers", os.cpu_count() or 1, "processes that decode, one per core", "N", least=1)
    batch = (
        "frame crops, of several videos, in a pass of the image tower (default: on a GPU 128; on a CPU those of one "
    )
    batch += "video, so that scores are those of classify to the last bit)"
    work.add_argument("--batch-size", metavar="N", type=options.Number("--batch-size", least=1), help=batch)
    options.add_framing(work)
    options.add_model(parser, encodes_labels=True)
    options.add_prompts(parser)
    options.set_run(parser, "serve")
