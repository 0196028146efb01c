"""Encode many videos in watched processes; each output appears complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mote_fast.errors import UndecodableVideoError, VideoError
from mote_fast.prepare.encoding import Span, encode
from mote_fast.prepare.journal import file_state
from mote_fast.prepare.prepare_settings import Encoding
from mote_fast.prepare.source_errors import reading
from mote_fast.runtime.parts import MAX_NAME_BYTES, complete, flush, new_part, remove_abandoned, writing
from mote_fast.runtime.workers import WorkerLostError, run_each


@dataclass(frozen=True)
class EncodeTask:
    """A video to be encoded.

    Attributes:
        name: name of the task, unique among those of a call.
        source: path of the video.
        target: path of the output.
        encoding: settings of the output.
        keep_intact_prefix: see ``encode``.
        span: the part to be written; None for all.
    """

    name: str
    source: Path
    target: Path
    encoding: Encoding
    keep_intact_prefix: bool = False
    span: Span | None = None


def encode_each(
    tasks: Sequence[EncodeTask], workers: int, time_limit: float
) -> Iterator[tuple[EncodeTask, dict[str, Any] | VideoError | WorkerLostError]]:
    """Yield each task, in the order in which they finish, with what is to be recorded of it, or with its error.

    A record has the source's ``size`` and ``mtime_ns`` before it was read, the output's ``bytes``, and the fields of
    ``Encoded``. The caller holds the lock of the outputs.

    Raises:
        ConfigError: an output cannot be written, or an argument is out of range.
    """
    folders = {task.target.parent for task in tasks}
    _remove_abandoned(folders)
    try:
        with closing(run_each(_encode, tasks, workers, time_limit)) as outcomes:
            for task, outcome in outcomes:
                if isinstance(outcome, WorkerLostError):
                    remove_abandoned(task.target.parent, task.target.name)
                if isinstance(outcome, VideoError | WorkerLostError):
                    yield task, outcome
                    continue
                part, record = outcome
                # Here and not in the process: that of a killed run may live on for a moment, and must rename nothing.
                with writing(task.target):
                    complete(part, task.target)
                yield task, record
    finally:
        _remove_abandoned(folders)


def _encode(task: EncodeTask) -> tuple[Path, dict[str, Any]]:
    """Encode one video into a part of its target; return the part and the record."""
    if len(os.fsencode(task.target.name)) > MAX_NAME_BYTES:
        raise UndecodableVideoError(task.source, f"its copy's name would be over {MAX_NAME_BYTES} bytes; rename it")
    state = file_state(task.source)
    with reading(task.source), writing(task.target):
        task.target.parent.mkdir(parents=True, exist_ok=True)
        with new_part(task.target) as part:
            encoded = encode(str(task.source), part, task.encoding, task.keep_intact_prefix, task.span)
            flush(part)
            return part, {**state, "bytes": part.stat().st_size, **asdict(encoded)}


def _remove_abandoned(folders: set[Path]) -> None:
    for folder in folders:
        remove_abandoned(folder)
