"""Scan every video of a data set: check that it opens, count its frames, and decode frames spread over it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.data.loading.samples import failure_of
from mote_fast.errors import VideoError
from mote_fast.prepare.journal import Journal, file_state
from mote_fast.prepare.prepare_settings import ScanOptions
from mote_fast.prepare.source_errors import reading
from mote_fast.runtime.workers import WorkerLostError, run_each

# Maximum bytes of decoded frames per video; fewer frames of larger videos are decoded.
_MAX_BYTES = 2**30


@dataclass(frozen=True)
class Scanned:
    """Result of a scan: the video's properties, or the kind of fault and its reason.

    ``kind`` is empty for a readable video, otherwise the error's class, "DecoderCrash" or "DecoderTimeout".
    ``cut_short`` says that the file declares more frames than its ``num_frames``.
    """

    kind: str = ""
    reason: str = ""
    num_frames: int = 0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    codec: str = ""
    cut_short: bool = False


@dataclass(frozen=True)
class _Task:
    """Decode ``frames`` frames of ``file``, which is the video ``path`` below the root."""

    path: str
    file: str
    frames: int


def scan_videos(root: Path, paths: Sequence[str], journal: Path, options: ScanOptions) -> dict[str, Scanned]:
    """Scan videos in separate processes; a video that crashes or hangs its decoder is marked, and the scan continues.

    Args:
        root: root folder of the videos.
        paths: paths relative to ``root``; the files exist.
        journal: file that stores results. A readable video recorded with the same size, modification time and number of
            decoded frames is not scanned again, so an interrupted scan continues where it stopped. Other videos are
            tried again: a slow disk, lack of memory or lack of permission does not change the file.
        options: see ``ScanOptions``.

    Returns: path -> result, for every path.

    Raises:
        ConfigError: the journal cannot be written, is in use, or is not a journal.
    """
    names = {field.name for field in fields(Scanned)}
    results: dict[str, Scanned] = {}
    with Journal(journal) as done, tqdm(total=len(paths), unit="videos", desc="scan", disable=None) as bar:
        marks: dict[str, dict[str, int]] = {}
        tasks: list[_Task] = []
        for path in paths:
            marks[path] = _mark(root / path, options.frames)
            record = done.records.get(path, {})
            if record.items() >= marks[path].items() and record.keys() >= names and not record["kind"]:
                results[path] = Scanned(**{name: record[name] for name in names})
            else:
                tasks.append(_Task(path, os.fspath(root / path), options.frames))
        bar.update(len(results))
        for task, outcome in run_each(_scan, tasks, options.workers, options.time_limit):
            found = outcome if isinstance(outcome, Scanned) else _faulty(outcome)
            done.append(task.path, **marks[task.path], **asdict(found))
            results[task.path] = found
            bar.update()
    return {path: results[path] for path in paths}


def _faulty(error: VideoError | WorkerLostError) -> Scanned:
    failure = failure_of(0, "", error)
    return Scanned(failure.kind, failure.reason)


def _mark(file: Path, frames: int) -> dict[str, Any]:
    """The values that must be unchanged for an earlier result to be valid."""
    # The scan itself will report the error of a file that cannot be seen.
    return {"size": -1, "mtime_ns": -1, "frames": frames} | file_state(file)


def _scan(task: _Task) -> Scanned:
    with reading(task.file):
        info = probe(task.file)
        if task.frames:
            affordable = max(1, min(task.frames, _MAX_BYTES // (3 * info.width * info.height)))
            # PyAV reports damage that torchcodec's decoder conceals.
            read_frames(task.file, _spread(info.num_frames, affordable), "pyav", info=info)
    return Scanned(
        num_frames=info.num_frames,
        width=info.width,
        height=info.height,
        fps=info.fps,
        codec=info.codec,
        cut_short=info.timeline.damaged,
    )


def _spread(num_frames: int, count: int) -> list[int]:
    """Return at most ``count`` distinct, evenly spaced indices; two or more include the first frame, all the last."""
    last = num_frames - 1
    return sorted({last - round(at * last / max(1, count - 1)) for at in range(count)})
