"""Look into every video of a data set: does it open, how long is it, do frames from all over it decode?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.data.loading.samples import failure_of
from mote_fast.errors import ConfigError, UndecodableVideoError, VideoError
from mote_fast.prepare.journal import Journal
from mote_fast.runtime.workers import WorkerLostError, run_each

# Bytes of decoded frames that one video may take at a time; what is larger is sampled at fewer places.
_MAX_BYTES = 2**30


@dataclass(frozen=True)
class ScanOptions:
    """How thoroughly videos are scanned.

    Attributes:
        workers: processes.
        frames: to decode of each video, evenly spaced with the first and the last; 0 reads the packets only.
        min_frames: a video with fewer is reported as too short.
        time_limit: seconds a video may take.
    """

    workers: int = 1
    frames: int = 8
    min_frames: int = 8
    time_limit: float = 60.0

    def __post_init__(self) -> None:
        if self.workers < 1 or self.frames < 0 or self.min_frames < 1 or self.time_limit <= 0:
            raise ConfigError(
                "--workers and --min-frames must be at least 1, --scan-frames at least 0 and --time-limit above 0, "
                f"got {self.workers}, {self.min_frames}, {self.frames} and {self.time_limit}"
            )


@dataclass(frozen=True)
class Scanned:
    """What a scan found: the video's properties, or the kind of fault and its reason.

    ``kind`` is empty for a sound video, else the error's class, "DecoderCrash" or "DecoderTimeout". ``cut_short`` says
    that the file promises more than its ``num_frames`` frames.
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
    """``file`` is the video ``path`` below the root; ``frames`` of it are to be decoded."""

    path: str
    file: str
    frames: int


def scan_videos(root: Path, paths: Sequence[str], journal: Path, options: ScanOptions) -> dict[str, Scanned]:
    """Scan videos in separate processes; what crashes or hangs its decoder is marked, and the scan goes on.

    Args:
        root: of the videos.
        paths: relative to ``root``; the files exist.
        journal: file that remembers results. A sound video that stands there with the same size, modification time and
            number of decoded frames is not scanned again, so an interrupted scan continues where it stopped. Others are
            tried again: a slow disk, a full memory or a lack of permission leaves no trace in the file.
        options: see ``ScanOptions``.

    Returns: path -> what was found, for every path.

    Raises:
        ConfigError: the journal cannot be written, is in use, or is no journal.
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
    """What must be unchanged for an earlier result to hold."""
    try:
        status = file.stat()
    except OSError:
        # The scan itself will say what is wrong.
        return {"size": -1, "mtime_ns": -1, "frames": frames}
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "frames": frames}


def _scan(task: _Task) -> Scanned:
    try:
        info = probe(task.file)
        if task.frames:
            affordable = max(1, min(task.frames, _MAX_BYTES // (3 * info.width * info.height)))
            # PyAV reports the damage that torchcodec's decoder paints over.
            read_frames(task.file, _spread(info.num_frames, affordable), "pyav", info=info)
    except VideoError:
        raise
    except Exception as error:
        # Whatever a decoder library throws at a damaged file must not end the scan of all others.
        raise UndecodableVideoError(task.path, f"{type(error).__name__}: {error}") from error
    return Scanned(
        num_frames=info.num_frames,
        width=info.width,
        height=info.height,
        fps=info.fps,
        codec=info.codec,
        cut_short=info.timeline.damaged,
    )


def _spread(num_frames: int, count: int) -> list[int]:
    """At most ``count`` distinct indices, evenly spaced, with the last frame and, of two or more, the first."""
    last = num_frames - 1
    return sorted({last - round(at * last / max(1, count - 1)) for at in range(count)})
