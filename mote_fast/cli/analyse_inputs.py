"""What the analyses read: loaders of lists."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from mote_fast.cli.options import UNTRAINED_NOTE
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.frame_folders import FRAME_TEMPLATE
from mote_fast.data.items import VideoItem, read_list, scan_folder
from mote_fast.data.loaders import LoaderBackend, make_loader
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.video_loader import LoaderOptions, VideoLoader
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError
from mote_fast.model.classifier import VideoClassifier


def add_loading_options(parser: argparse.ArgumentParser, views: str) -> None:
    """Add the options that say how videos are read; ``views`` is the default, in words."""
    group = parser.add_argument_group("reading")
    group.add_argument("--views", metavar="CxC", help=f"clips x crops (default {views})")
    group.add_argument("--batch-size", type=int, default=8, help="videos in a batch (default 8)")
    group.add_argument("--workers", type=int, default=4, help="processes that decode (default 4)")
    group.add_argument("--loader", choices=get_args(LoaderBackend), default="auto", help="who decodes (default auto)")
    group.add_argument(
        "--frame-template",
        default=FRAME_TEMPLATE,
        metavar="NAME",
        help="image names in folders of extracted frames (default %(default)s)",
    )


def recipe_of(model: VideoClassifier, views: Views) -> ClipRecipe:
    """Return how videos become what the model takes."""
    towers = model.clip
    return ClipRecipe(
        frames=model.frames, size=towers.image_size, views=views, mean=towers.config.mean, std=towers.config.std
    )


def loader_of(
    arguments: argparse.Namespace, model: VideoClassifier, items: Sequence[VideoItem], views: Views
) -> VideoLoader:
    """Return a loader of the videos, for this process alone."""
    dataset = VideoDataset(
        items, recipe_of(model, views), decode_backend=arguments.decode, frame_template=arguments.frame_template
    )
    options = LoaderOptions(
        arguments.batch_size,
        training=False,
        workers=arguments.workers,
        device=model.device,
        dtype=model.clip.dtype,
    )
    return make_loader(dataset, options, arguments.loader)


def some_videos(source: str, root: str, count: int) -> list[VideoItem]:
    """Read a list or a folder of classes, and return ``count`` of its videos evenly spread over it.

    Lists are often sorted by class, so the first videos would be of a few classes only.

    Raises:
        ConfigError: ``count`` is below 1.
        ListError: the list is missing or malformed.
    """
    if count < 1:
        raise ConfigError(f"--count must be at least 1, got {count}")
    items = scan_folder(source)[0] if Path(source).is_dir() else read_list(source, root)
    count = min(count, len(items))
    return [items[at * len(items) // count] for at in range(count)]


def report(failures: Sequence[Failure], untrained: bool) -> int:
    """Say on standard error what stood in the way of the numbers; return the exit status, 2 if any video failed."""
    if failures:
        # The log named each when it failed.
        print(f"mote-fast: error: {len(failures)} videos could not be read", file=sys.stderr)
    if untrained:
        print(UNTRAINED_NOTE, file=sys.stderr)
    return 2 if failures else 0
