"""``mote-fast index``: make, change and describe an index of videos."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict

from tqdm import tqdm

from mote_fast.cli import inputs, outputs
from mote_fast.cli.videos import videos_of
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError
from mote_fast.model.results import VideoEmbedding
from mote_fast.search.graph import check_usearch
from mote_fast.search.index_record import RECORD_FILE
from mote_fast.search.video_index import Index


def run_build(arguments: argparse.Namespace) -> int:
    """Make an index if there is none, and add the videos. Returns 0, or 3 if a video failed."""
    Views.parse(arguments.views)
    index = Index(arguments.index) if os.path.lexists(os.path.join(arguments.index, RECORD_FILE)) else None
    if index is not None:
        own = index.record.embedding
        for option in ("views", "pixel_aspect", "crops_along"):
            if (asked := getattr(arguments, option)) != getattr(own, option):
                raise ConfigError(
                    f"--{option.replace('_', '-')} {asked}: {arguments.index} has {getattr(own, option)}; "
                    "give that, or build another index"
                )
        if arguments.moments is not None and arguments.moments != own.moments:
            held = "whole videos" if own.moments is None else f"moments of {own.moments:g} s"
            raise ConfigError(f"--moments {arguments.moments:g}: {arguments.index} has {held}; build another index")
    return _add(arguments, index)


def run_add(arguments: argparse.Namespace) -> int:
    """Add videos to an index that exists. Returns 0, or 3 if a video failed."""
    return _add(arguments, Index(arguments.index))


def run_delete(arguments: argparse.Namespace) -> int:
    """Delete videos, all or none. Returns 0."""
    index = Index(arguments.index)
    # The ids of videos are their absolute paths.
    ids = [name if name in index else os.path.abspath(name) for name in arguments.ids]
    deleted = index.delete(ids)
    document = {"index": arguments.index, "deleted": deleted, "rows": len(index)}
    outputs.show(arguments, document, [f"{arguments.index}: {deleted} deleted, {len(index)} remain"])
    return 0


def run_info(arguments: argparse.Namespace) -> int:
    """Describe an index. Returns 0."""
    index = Index(arguments.index)
    record = index.record
    size = sum((index.folder / name).stat().st_size for name in (RECORD_FILE, *record.files))
    document = {
        "index": arguments.index,
        "rows": len(index),
        "model": record.model,
        "fingerprint": record.fingerprint,
        "dimension": record.dimension,
        "embedding": asdict(record.embedding),
        "files": len(record.files),
        "bytes": size,
        "recall": None if record.graph is None else record.graph.recall,
    }
    own = record.embedding
    lines = [
        f"{arguments.index}: {len(index)} rows of {record.dimension} numbers, {size / 1e6:.1f} MB in "
        f"{len(record.files)} files",
        f"model {record.model}, weights {record.fingerprint[:12]}",
        f"{own.features} features, {own.views} views of {own.frames} frames, pixel aspect: {own.pixel_aspect}, "
        f"crops along: {own.crops_along}",
    ]
    if own.moments is not None:
        lines.append(f"a row for every {own.moments:g} s of each video")
    if record.graph is not None:
        lines.append(_approximate(record.graph.recall))
    outputs.show(arguments, document, lines)
    return 0


def _approximate(recall: float) -> str:
    return f"approximate search finds {100 * recall:.1f} % of the 10 nearest rows"


def _add(arguments: argparse.Namespace, index: Index | None) -> int:
    if arguments.approximate:
        # Better told before the videos are read than after.
        check_usearch()
    videos = videos_of(arguments)
    # No process is started for one video: the stream has processes of its own.
    arguments.videos = []
    model = inputs.model_of(arguments)
    settings = arguments if index is None else index.record.embedding
    model.pixel_aspect, model.crops_along = settings.pixel_aspect, settings.crops_along
    if index is None:
        name = arguments.checkpoint or arguments.model
        index = Index.create(arguments.index, model, name=name, views=arguments.views, moments=arguments.moments)
    failed = [{"video": path, "error": problem} for path, problem in videos.missing.items()]
    paths = list(dict.fromkeys(os.path.abspath(path) for path in videos.present))
    known = 0 if arguments.replace else sum(index.has_video(path) for path in paths)
    added = 0
    # Nothing is drawn where standard error is no terminal.
    shown = tqdm(total=len(paths) - known, unit="videos", delay=2, disable=None)

    def note(result: VideoEmbedding) -> None:
        nonlocal added
        if result.error is None:
            added += 1
        else:
            failed.append({"video": result.video, "error": str(result.error)})
            with tqdm.external_write_mode(sys.stderr):
                outputs.report([str(result.error)])
        shown.update()

    with shown:
        workers = min(len(paths), os.cpu_count() or 1)
        index.add_videos(model, paths, replace=arguments.replace, workers=workers, progress=note)
    recall = index.add_approximate() if arguments.approximate and len(index) else None
    document = {
        "index": arguments.index,
        "model": index.record.model,
        "caution": model.caution,
        "added": added,
        "skipped": known,
        "failed": failed,
        "rows": len(index),
        "recall": recall,
    }
    lines = [f"{arguments.index}: {added} videos added, {known} were there, {len(failed)} failed; {len(index)} rows"]
    if recall is not None:
        lines.append(_approximate(recall))
    outputs.show(arguments, document, lines)
    return outputs.SOME_FAILED if failed else 0
