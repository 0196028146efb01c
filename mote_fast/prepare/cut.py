"""Cut parts out of videos: each part becomes a video of its own, encoded for fast sparse decoding."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from tqdm import tqdm

from mote_fast.data.loading.faults import Failure, write_faults
from mote_fast.data.loading.samples import failure_of
from mote_fast.errors import ConfigError, MoteError
from mote_fast.prepare.encoding import Encoding, Span, encode
from mote_fast.prepare.journal import Journal, file_state
from mote_fast.runtime.files import PART_SUFFIX, staged
from mote_fast.runtime.workers import run_each

JOURNAL_FILE = ".cut.jsonl"
FAULT_FILE = "faults.jsonl"

# Names of unfinished clips, by ``_part_of``.
_PART = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(PART_SUFFIX)}")


class Cut(NamedTuple):
    """A part to be cut: the video, relative to its root; the clip, relative to the target; and the part's times."""

    video: str
    clip: str
    span: Span


@dataclass(frozen=True)
class CutClips:
    """The result of a call: numbers of clips written and already done, and the failures, their paths the clips'."""

    written: int
    already_done: int
    failures: tuple[Failure, ...]


def cut_clips(
    cuts: Sequence[Cut],
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    encoding: Encoding | None = None,
    *,
    workers: int = 1,
    time_limit: float = 600.0,
) -> CutClips:
    """Cut parts of the videos below ``source`` into clips below ``target``; continue an interrupted call.

    The videos are only read. A clip appears complete or not at all, and is cut again if the size or modification time
    of its video, or an option, has changed. ``target/faults.jsonl`` lists the clips that could not be cut.

    Args:
        cuts: the parts; every clip has another name.
        source: root of the videos.
        target: root of the clips.
        encoding: settings of the clips; None for the defaults.
        workers: processes that encode, one thread each.
        time_limit: seconds per clip.

    Raises:
        ConfigError: a clip is named twice, an argument is out of range, the target cannot be written, or another
            process is writing to it.
    """
    encoding = encoding or Encoding()
    root, out = Path(source), Path(target)
    if len({cut.clip for cut in cuts}) < len(cuts):
        raise ConfigError("two parts are to become one clip; name them apart")
    options = asdict(encoding)
    with Journal(out / JOURNAL_FILE) as journal:
        # Only now: until here another run might have been writing them.
        _remove_parts(out)
        tasks = [_Task(cut, root / cut.video, _part_of(out), encoding) for cut in cuts]
        pending = {
            at: task
            for at, task in enumerate(tasks)
            if not _is_done(journal.records.get(task.cut.clip, {}), task, out / task.cut.clip, options)
        }
        position = {task.cut.clip: at for at, task in pending.items()}
        failures: list[Failure] = []
        with tqdm(total=len(pending), unit="clip", desc="cutting", disable=None) as bar:
            for task, outcome in run_each(_cut_one, pending.values(), workers, time_limit):
                clip = out / task.cut.clip
                if isinstance(outcome, Exception):
                    with suppress(OSError):
                        task.part.unlink()
                    failures.append(failure_of(position[task.cut.clip], task.cut.clip, outcome))
                else:
                    # The process of a killed run may live on for a moment, so processes rename nothing.
                    with staged(clip) as part:
                        task.part.replace(part)
                    journal.append(task.cut.clip, **outcome, bytes=clip.stat().st_size, **_wanted(task, options))
                bar.update()
        failures.sort(key=lambda failure: failure.index)
        write_faults(failures, out / FAULT_FILE)
    return CutClips(len(pending) - len(failures), len(tasks) - len(pending), tuple(failures))


class _Task(NamedTuple):
    cut: Cut
    source: Path
    part: Path
    encoding: Encoding


def _cut_one(task: _Task) -> dict[str, Any]:
    """Encode one clip into its part; return what identifies its video."""
    state = file_state(task.source)
    try:
        encode(str(task.source), task.part, task.encoding, span=task.cut.span)
    except OSError as error:
        # Some errors of videos are of this kind too.
        if isinstance(error, MoteError):
            raise
        raise ConfigError(f"{task.part.parent}: cannot be written ({error})") from error
    return state


def _wanted(task: _Task, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"video": task.cut.video, "span": list(task.cut.span), "options": dict(options)}


def _is_done(record: Mapping[str, Any], task: _Task, clip: Path, options: Mapping[str, Any]) -> bool:
    state = file_state(task.source)
    expected = _wanted(task, options) | state
    if not state or {name: record.get(name) for name in expected} != expected:
        return False
    try:
        return clip.stat().st_size == record.get("bytes")
    except OSError:
        return False


def _part_of(out: Path) -> Path:
    return out / f".{uuid4().hex}{PART_SUFFIX}"


def _remove_parts(out: Path) -> None:
    for entry in out.iterdir():
        if _PART.fullmatch(entry.name):
            with suppress(OSError):
                entry.unlink()
