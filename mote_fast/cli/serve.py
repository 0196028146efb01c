"""``mote-fast serve``: a model behind HTTP, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import closing

from mote_fast.cli import inputs, outputs
from mote_fast.cli.demo import demo_videos
from mote_fast.data.items import read_labels
from mote_fast.data.text_tables import read_text
from mote_fast.errors import ConfigError
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.many_videos import BATCH_SIZE
from mote_fast.runtime.extras import required
from mote_fast.search.video_index import Index
from mote_fast.serve.limits import Limits

_TOKEN = re.compile(r"[\x21-\x7e]+")


def run(arguments: argparse.Namespace) -> int:
    """Load the model, print the address, and serve. Returns 0 after SIGTERM."""
    for package in ("fastapi", "uvicorn", "python_multipart"):
        required(package, "the server", "serve")
    # They import these packages.
    from mote_fast.serve.app import Example, Offer, make_app
    from mote_fast.serve.engine import Engine
    from mote_fast.serve.guard import LOOPBACK
    from mote_fast.serve.run import listen, run_server

    if arguments.demo:
        _choose_demo(arguments)
    token = _token(arguments.token_file)
    labels = inputs.labels_of(arguments) if _names_labels(arguments) else None
    index = None if arguments.index is None else Index(arguments.index)
    listening = listen(arguments.host, arguments.port)
    with closing(listening):
        arguments.videos = []
        model = inputs.model_of(arguments)
        model.pixel_aspect, model.crops_along = arguments.pixel_aspect, arguments.crops_along
        limits = Limits(
            upload_bytes=round(arguments.max_upload * 10**6),
            video_seconds=arguments.max_seconds,
            labels=arguments.max_labels,
            decode_seconds=arguments.time_limit,
            requests=arguments.queue,
        )
        engine = Engine(model, limits, workers=arguments.workers, batch_size=_batch_size(arguments, model))
        with closing(engine):
            engine.start(str(demo_videos()[0]))
            examples = (
                [Example(path, read_labels(path.parent.with_suffix(".csv"))) for path in demo_videos()]
                if arguments.demo
                else []
            )
            offer = Offer(arguments.checkpoint or arguments.model, labels or model.classes, index, examples)
            hosts = LOOPBACK if arguments.host in LOOPBACK else None
            app = make_app(engine, offer, token=token, hosts=hosts)
            if hosts is None and token is None:
                print(
                    "note: whoever reaches this port can use the server; --token-file asks for a token", file=sys.stderr
                )
            host, port = listening.getsockname()[:2]
            outputs.write(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
            run_server(app, listening)
    return 0


def _choose_demo(arguments: argparse.Namespace) -> None:
    if arguments.checkpoint is not None or "model" in getattr(arguments, "given", ()):
        raise ConfigError("--demo takes the shipped model; leave --model and --checkpoint out")
    arguments.model = "tiny"


def _names_labels(arguments: argparse.Namespace) -> bool:
    return any(each is not None for each in (arguments.labels, arguments.labels_file, arguments.label_set))


def _token(file: str | None) -> str | None:
    if file is None:
        return None
    token = read_text(file).strip()
    if not _TOKEN.fullmatch(token):
        raise ConfigError(f"--token-file {file}: must hold one word of ASCII characters")
    return token


def _batch_size(arguments: argparse.Namespace, model: VideoClassifier) -> int | None:
    if arguments.batch_size is None and model.device.type != "cpu":
        return BATCH_SIZE
    return arguments.batch_size
