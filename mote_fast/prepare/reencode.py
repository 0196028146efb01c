"""Re-encode a folder tree of videos into another one for fast sparse decoding; see ``mote_fast.prepare.encoding``."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from tqdm import tqdm

from mote_fast.data.find_videos import is_video_name
from mote_fast.data.items import read_list
from mote_fast.data.loading.faults import Failure, write_faults
from mote_fast.data.loading.samples import failure_of
from mote_fast.data.text_tables import read_table
from mote_fast.errors import ConfigError, ListError
from mote_fast.prepare.encode_each import EncodeTask, encode_each
from mote_fast.prepare.journal import Journal, file_state
from mote_fast.prepare.lists import format_list
from mote_fast.prepare.prepare_settings import Encoding

JOURNAL_FILE = ".reencode.jsonl"
FAULT_FILE = "faults.jsonl"

SUFFIX = ".mp4"


@dataclass(frozen=True)
class Reencoded:
    """Result of a call: source -> target path, both relative; numbers of videos written and already done; failures."""

    names: dict[str, str]
    written: int
    already_done: int
    failures: tuple[Failure, ...]


def target_names(source: str | os.PathLike[str], videos: Sequence[str]) -> dict[str, str]:
    """Return the target path of each video: the same path with the suffix ``.mp4``.

    Videos of the source folder that differ only in their suffix keep it: ``a.avi`` becomes ``a.avi.mp4``. This depends
    on the folder, not on the requested videos.

    Raises:
        ConfigError: two videos still have the same target.
    """
    stems: dict[str, Counter[str]] = {}
    names: dict[str, str] = {}
    for video in dict.fromkeys(videos):
        folder, name = os.path.split(video)
        if folder not in stems:
            stems[folder] = _stems_in(os.path.join(source, folder))
        stem = PurePath(name).stem
        unique = stems[folder][stem] < 2
        names[video] = os.path.join(folder, (stem if unique else name) + SUFFIX)
    for target, count in Counter(names.values()).items():
        if count > 1:
            first, second, *_ = (video for video, name in names.items() if name == target)
            raise ConfigError(f"{first} and {second} would both become {target}; rename one")
    return names


def reencode(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    videos: Sequence[str],
    encoding: Encoding | None = None,
    *,
    keep_intact_prefix: bool = False,
    workers: int = 1,
    time_limit: float = 600.0,
) -> Reencoded:
    """Re-encode videos of one folder tree into another; continue where an interrupted call stopped.

    The sources are only read. An output appears complete or not at all. A video is encoded again if its size, its
    modification time or an option has changed. ``target/faults.jsonl`` lists the damaged videos.

    Args:
        source: root of the videos.
        target: root of the outputs; it must neither contain ``source`` nor lie inside it.
        videos: paths relative to ``source``.
        encoding: settings of the outputs; None for the defaults.
        keep_intact_prefix: write the frames of a damaged video before the damage, instead of nothing.
        workers: processes that encode, one thread each.
        time_limit: seconds per video.

    Raises:
        ConfigError: an argument is out of range, the target cannot be written, or another process is writing to it.
    """
    encoding = encoding or Encoding()
    root, out = Path(source), Path(target)
    _check_apart(root, out)
    names = target_names(source, videos)
    options = {**asdict(encoding), "keep_intact_prefix": keep_intact_prefix}
    with Journal(out / JOURNAL_FILE) as journal:
        tasks: list[EncodeTask] = []
        lost: dict[str, Failure | None] = {}
        positions = {video: position for position, video in enumerate(names)}
        for video, name in names.items():
            task = EncodeTask(video, root / video, out / name, encoding, keep_intact_prefix)
            record = journal.records.get(video)
            if record is not None and _is_done(record, task, {"target": name, "options": options}):
                lost[video] = _cut_short(positions[video], video, record)
            else:
                tasks.append(task)
        written = 0
        with tqdm(total=len(tasks), unit="video", desc="re-encoding", disable=None) as bar:
            for task, outcome in encode_each(tasks, workers, time_limit):
                if isinstance(outcome, Exception):
                    lost[task.name] = failure_of(positions[task.name], task.name, outcome)
                else:
                    journal.append(task.name, target=names[task.name], options=options, **outcome)
                    lost[task.name] = _cut_short(positions[task.name], task.name, outcome)
                    written += 1
                bar.update()
        failures = tuple(failure for video in names if (failure := lost[video]) is not None)
        write_faults(failures, out / FAULT_FILE)
    return Reencoded(names, written, len(names) - len(tasks), failures)


def rewrite_list(path: str | os.PathLike[str], names: Mapping[str, str]) -> str:
    """Return the text of a list, or of a CSV, with each video's path replaced by its target's.

    No line is left out: a video that could not be re-encoded stays listed, so that evaluation counts it as failed.

    Args:
        path: path of the list.
        names: source -> target, as in ``Reencoded``.

    Raises:
        ListError: the list cannot be read, or has a video without a target.
    """
    items = [replace(item, path=_target_of(item.path, names, path)) for item in read_list(path)]
    if Path(path).suffix.lower() != ".csv":
        return format_list(items)
    table = read_table(path, ("path", "label"))
    place = table.place("path")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.header)
    for row, item in zip(table.rows, items, strict=True):
        writer.writerow([item.path if at == place else cell for at, cell in enumerate(row.cells)])
    return text.getvalue()


def listed_videos(path: str | os.PathLike[str]) -> list[str]:
    """Return the videos of a list whose paths are relative to the source.

    Raises:
        ListError: the list cannot be read, has folders of extracted frames, or has a path outside the source.
    """
    videos = []
    for item in read_list(path):
        video = os.path.normpath(item.path)
        if item.num_frames:
            raise ListError(f"{path}: {item.path} is a folder of extracted frames; only videos are re-encoded")
        if os.path.isabs(video) or video.startswith(os.pardir + os.sep):
            raise ListError(f"{path}: {item.path} does not lie below the source; give paths relative to it")
        videos.append(video)
    return videos


def _target_of(path: str, names: Mapping[str, str], source: str | os.PathLike[str]) -> str:
    try:
        return names[os.path.normpath(path)]
    except KeyError as error:
        raise ListError(f"{source}: {path} is not among the videos that were re-encoded") from error


def _is_done(record: Mapping[str, Any], task: EncodeTask, wanted: Mapping[str, Any]) -> bool:
    state = file_state(task.source)
    expected = {**wanted, **state, "bytes": file_state(task.target).get("size")}
    return bool(state) and "lost" in record and {name: record.get(name) for name in expected} == expected


def _cut_short(position: int, video: str, record: Mapping[str, Any]) -> Failure | None:
    """Return the failure of a video whose frames were written only up to the damage, or None."""
    return Failure(position, video, "UndecodableVideoError", record["lost"]) if record["lost"] else None


def _stems_in(folder: str) -> Counter[str]:
    """Count the videos of a folder by name without suffix."""
    try:
        names = os.listdir(folder)
    except OSError:
        # Reading the folder's videos will report the error.
        return Counter()
    return Counter(PurePath(name).stem for name in names if is_video_name(name))


def _check_apart(source: Path, target: Path) -> None:
    one, other = source.resolve(), target.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise ConfigError(f"{target}: the target must lie outside the source {source}, and not around it")
