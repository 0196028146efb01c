"""Cut parts out of videos: each part becomes a video of its own, encoded for fast sparse decoding."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from mote_fast.data.loading.faults import Failure, write_faults
from mote_fast.data.loading.samples import failure_of
from mote_fast.errors import ConfigError
from mote_fast.prepare.encode_each import EncodeTask, encode_each
from mote_fast.prepare.encoding import Span
from mote_fast.prepare.journal import Journal, file_state
from mote_fast.prepare.prepare_settings import Encoding

JOURNAL_FILE = ".cut.jsonl"
FAULT_FILE = "faults.jsonl"


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
        tasks: list[EncodeTask] = []
        places: dict[str, int] = {}
        for place, cut in enumerate(cuts):
            task = EncodeTask(cut.clip, root / cut.video, out / cut.clip, encoding, span=cut.span)
            if not _is_done(journal.records.get(cut.clip, {}), cut, task, options):
                tasks.append(task)
                places[cut.clip] = place
        failures: list[Failure] = []
        with tqdm(total=len(tasks), unit="clip", desc="cutting", disable=None) as bar:
            for task, outcome in encode_each(tasks, workers, time_limit):
                place = places[task.name]
                if isinstance(outcome, Exception):
                    failures.append(failure_of(place, task.name, outcome))
                else:
                    journal.append(task.name, **outcome, **_wanted(cuts[place], options))
                bar.update()
        failures.sort(key=lambda failure: failure.index)
        write_faults(failures, out / FAULT_FILE)
    return CutClips(len(tasks) - len(failures), len(cuts) - len(tasks), tuple(failures))


def _wanted(cut: Cut, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"video": cut.video, "span": list(cut.span), "options": dict(options)}


def _is_done(record: Mapping[str, Any], cut: Cut, task: EncodeTask, options: Mapping[str, Any]) -> bool:
    state = file_state(task.source)
    expected = {**_wanted(cut, options), **state, "bytes": file_state(task.target).get("size")}
    return bool(state) and {name: record.get(name) for name in expected} == expected
