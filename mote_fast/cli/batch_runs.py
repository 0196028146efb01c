"""``mote-fast batch``: a whole collection, labelled or embedded."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from tqdm import tqdm

from mote_fast.batch.collection_index import index
from mote_fast.batch.collection_runs import Place, RunState, kinds_of, retry, run, status
from mote_fast.batch.ray_engine import Cluster
from mote_fast.batch.run_folder import RunFolder, Summary
from mote_fast.batch.video_sources import Columns
from mote_fast.cli import inputs, outputs
from mote_fast.errors import ListError, quoted
from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.reading import expanded
from mote_fast.runtime.text import visible

# The options that decide which model judges, for `retry`.
_CHOSEN = (
    *("checkpoint", "model", "clip", "interpolate", "frames", "clip_pretrained", "header", "dtype", "calibrate"),
    *("decode", "loader", "no_modulation", "no_cache", "templates", "descriptions", "description_weight"),
    *("pixel_aspect", "crops_along", "given"),
)

# Seconds between two lines of JSON about one file.
_EVERY = 1.0


def run_classify(arguments: argparse.Namespace) -> int:
    """Rank labels for each video. Returns 0, or 3 if a video has no result."""
    labels = inputs.labels_of(arguments)
    return _run(arguments, {"task": "classify", "labels": labels, "views": arguments.views, "topk": arguments.topk})


def run_embed(arguments: argparse.Namespace) -> int:
    """Embed each video. Returns 0, or 3 if a video has no result."""
    return _run(arguments, {"task": "embed", "views": arguments.views, "numbers": arguments.numbers})


def run_status(arguments: argparse.Namespace) -> int:
    """Print how far a run is. Returns 0."""
    _show(arguments, status(arguments.output))
    return 0


def run_index(arguments: argparse.Namespace) -> int:
    """Put the embeddings of a run into a search index. Returns 0."""
    found = index(arguments.output, arguments.index)
    line = f"{arguments.index}: {len(found)} rows"
    outputs.show(arguments, {"output": arguments.output, "index": arguments.index, "rows": len(found)}, [line])
    return 0


def run_retry(arguments: argparse.Namespace) -> int:
    """Judge videos without a result once more. Returns 0, or 3 if one still has none."""
    kinds = None if arguments.only is None else kinds_of(arguments.only.split(","))
    chosen = RunFolder(expanded(arguments.output)).record.request.get("options")
    if not isinstance(chosen, Mapping) or not set(_CHOSEN) - {"loader"} <= set(chosen):
        raise ListError(
            f"{arguments.output}: was not made by the command (its options are {quoted(chosen)}); use "
            "mote_fast.batch.retry"
        )
    for name in _CHOSEN:
        # Earlier runs had no choice of the loader.
        setattr(arguments, name, chosen.get(name, "cpu") if name == "loader" else chosen[name])
    with _Display(arguments) as display:
        found = retry(
            arguments.output,
            model=partial(_model, arguments),
            only=kinds,
            engine=arguments.engine,
            actors=arguments.actors,
            workers=arguments.workers,
            address=arguments.address,
            batch_size=arguments.batch_size,
            time_limit=arguments.time_limit,
            progress=display,
        )
    return _finish(arguments, found)


def _run(arguments: argparse.Namespace, request: Mapping[str, Any]) -> int:
    columns = Columns(arguments.path_column, arguments.id_column, arguments.root)
    # An actor gets a GPU only where the model may take it.
    gpus = 0.0 if arguments.device == "cpu" else None
    cluster = Cluster(arguments.address, arguments.actors, arguments.workers, gpus)
    place = Place(arguments.engine, arguments.batch_size, arguments.time_limit, cluster)
    chosen = {name: _absolute(getattr(arguments, name, None)) for name in _CHOSEN}
    chosen["given"] = sorted(getattr(arguments, "given", ()))
    make = partial(_model, arguments)
    with _Display(arguments) as display:
        every = arguments.durable_every
        found = run(arguments.input, arguments.output, make, request, place, every, columns, chosen, display)
    return _finish(arguments, found)


def _model(arguments: argparse.Namespace) -> VideoClassifier:
    # No process is started for one video: the run has processes of its own.
    arguments.videos = []
    model = inputs.model_of(arguments)
    model.pixel_aspect, model.crops_along = arguments.pixel_aspect, arguments.crops_along
    return model


def _absolute(value: Any) -> Any:
    """An option as it is told from another folder."""
    return os.path.abspath(value) if isinstance(value, str) and os.path.exists(expanded(value)) else value


def _finish(arguments: argparse.Namespace, found: Summary) -> int:
    _show(arguments, found, "finished")
    return outputs.SOME_FAILED if found.failed else 0


def _show(arguments: argparse.Namespace, found: Summary, event: str | None = None) -> None:
    told = {"output": arguments.output, **found._asdict(), "missing": found.planned - found.done}
    if arguments.json and event is not None:
        outputs.write(to_json({"event": event, **told}))
        return
    failed = ", ".join(f"{count} {kind}" for kind, count in found.failed.items()) or "none"
    left = f", {told['missing']} to do" if told["missing"] else ""
    outputs.show(
        arguments, told, [f"{arguments.output}: {found.done} of {found.planned} videos{left}; failed: {failed}"]
    )


class _Display:
    """Shows how far a run is: a bar on a terminal, or lines of JSON."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._json, self._output = arguments.json, arguments.output
        self._bar: tqdm[Any] | None = None
        self._first = self._last = RunState(0, 0, 0, {})
        self._began = self._told = 0.0

    def __call__(self, state: RunState) -> None:
        """See ``RunProgress``."""
        if self._bar is None:
            # Nothing is drawn where standard error is no terminal.
            self._bar = tqdm(total=state.planned, initial=state.done, unit="videos", disable=None)
            self._first, self._began = state, time.monotonic()
        self._bar.update(state.judged - self._last.judged)
        if state.failed != self._last.failed:
            failed = " ".join(f"{kind} {count}" for kind, count in state.failed.items())
            self._bar.set_postfix_str(failed, refresh=False)
        if self._json and state.done != self._last.done and time.monotonic() - self._told > _EVERY:
            self._told = time.monotonic()
            outputs.write(self._line(state))
        self._last = state

    def _line(self, state: RunState) -> str:
        rate = state.judged / max(time.monotonic() - self._began, 1e-9)
        left = (state.planned - state.done) / rate if rate else None
        told = {"event": "written", "output": self._output, **state._asdict()}
        return to_json({**told, "videos_per_second": rate, "seconds_left": left})

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is KeyboardInterrupt:
            done = f"{self._last.done} of {self._last.planned} videos are done"
            outputs.report([visible(f"{self._output}: {done}; give the command again to go on")])
