"""Write the videos of a list into tar shards in the WebDataset layout, shuffled once, for sequential reading at scale.

A sample is two files: ``KEY.EXT``, the unchanged video, and ``KEY.json`` (``index``, ``label``, ``path`` as in the
list, ``num_frames``, ``width``, ``height``, ``codec``). The key is the video's index in the list, so a clip from a
shard equals the one that ``VideoDataset`` makes from the video file.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mote_fast.data.decoding.decode import probe
from mote_fast.data.items import VideoItem, check_one_label
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.samples import failure_of
from mote_fast.data.shards.shard_index import INDEX_FILE, ShardIndex, TarShard, key_of
from mote_fast.data.shards.shard_stream import MAX_VIDEO_BYTES
from mote_fast.errors import ConfigError, ListError, VideoError
from mote_fast.prepare.journal import Journal
from mote_fast.prepare.source_errors import SourceFile, reading
from mote_fast.runtime.files import staged
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.seeding import generator_of
from mote_fast.runtime.workers import run_each

JOURNAL_FILE = "journal.jsonl"

# The name of the journal's first record, which identifies the source of the shards.
_PLAN = "plan"


@dataclass(frozen=True)
class _Source:
    """One video of the list, its path, and its file's size and modification time."""

    index: int
    item: VideoItem
    file: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class _Planned:
    name: str
    sources: tuple[_Source, ...]


def write_shards(
    items: Sequence[VideoItem],
    folder: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] = "",
    max_bytes: int = 10**9,
    max_samples: int | None = None,
    seed: int = 0,
    labels: Sequence[str] = (),
    workers: int = 1,
    time_limit: float = 60.0,
) -> ShardIndex:
    """Write shards and their index; continue where an interrupted call with the same arguments stopped.

    The bytes depend on the arguments and the videos alone. A shard appears complete or not at all; the index appears
    once all shards exist. Videos that cannot be read, or have over ``MAX_VIDEO_BYTES``, are left out and named in the
    index.

    Args:
        items: videos of the list, with paths relative to ``root``.
        folder: folder for the shards; empty, or from an earlier call.
        root: root folder of the videos.
        max_bytes: maximum bytes of videos in a shard; a larger video gets its own shard.
        max_samples: maximum videos in a shard; None for no limit besides ``max_bytes``.
        seed: seed of the order.
        labels: class names in index order, for the index.
        workers: processes that probe the videos.
        time_limit: seconds per video.

    Raises:
        ConfigError: an argument is out of range, or the folder holds other shards, cannot be written, or is in use.
        ListError: the list has folders of extracted frames, a video with several labels, or no readable video.
    """
    check_one_label(items, "the list", "a tar shard holds one for each video")
    if max_bytes < 1 or (max_samples is not None and max_samples < 1):
        raise ConfigError(f"max_bytes and max_samples must be at least 1, got {max_bytes} and {max_samples}")
    sources, refused = _find(items, root)
    plan = _plan(sources, max_bytes, max_samples, seed)
    out = Path(folder)
    with Journal(out / JOURNAL_FILE) as journal:
        _check_same(journal, _fingerprint(plan, refused, labels), out)
        pending = [shard for shard in plan if not _is_done(journal, out, shard.name)]
        _write_pending(pending, journal, out, workers, time_limit)
        records = [journal.records[shard.name] for shard in plan]
        shards = tuple(TarShard(record["name"], record["size"], tuple(record["indices"])) for record in records)
        left_out = [*refused, *(Failure(**failure) for record in records for failure in record["left_out"])]
        index = ShardIndex(out, shards, tuple(sorted(left_out, key=lambda failure: failure.index)), tuple(labels))
        if not index.samples:
            raise ListError(f"not one of {len(items)} videos can be read ({left_out[0].path}: {left_out[0].reason})")
        with staged(out / INDEX_FILE) as part:
            part.write_text(index.document(), encoding="utf-8")
    return index


def _find(items: Sequence[VideoItem], root: str | os.PathLike[str]) -> tuple[list[_Source], list[Failure]]:
    sources, refused = [], []
    for index, item in enumerate(items):
        if item.num_frames:
            raise ListError(f"{item.path}: a folder of extracted frames; shards hold video files")
        file = os.path.join(root, item.path)
        try:
            status = os.stat(file)
        except (OSError, ValueError) as error:
            refused.append(Failure(index, item.path, "MissingVideoError", f"no such file ({error})"))
            continue
        if status.st_size > MAX_VIDEO_BYTES:
            reason = f"has {status.st_size} bytes, over the limit of {MAX_VIDEO_BYTES} in a shard; re-encode or cut it"
            refused.append(Failure(index, item.path, "UndecodableVideoError", reason))
        else:
            sources.append(_Source(index, item, file, status.st_size, status.st_mtime_ns))
    return sources, refused


def _plan(sources: Sequence[_Source], max_bytes: int, max_samples: int | None, seed: int) -> list[_Planned]:
    """Assign videos to shards by file size alone, so that a damaged video does not move others."""
    parts: list[list[_Source]] = []
    room = 0
    for at in torch.randperm(len(sources), generator=generator_of(seed, "shards")).tolist():
        source = sources[at]
        if not parts or source.size > room or len(parts[-1]) == max_samples:
            parts.append([])
            room = max_bytes
        parts[-1].append(source)
        room -= source.size
    return [_Planned(f"shard-{number:06d}.tar", tuple(part)) for number, part in enumerate(parts)]


def _fingerprint(plan: Sequence[_Planned], refused: Sequence[Failure], labels: Sequence[str]) -> str:
    content = {
        "shards": {shard.name: [_identity(source) for source in shard.sources] for shard in plan},
        "missing": [failure.index for failure in refused],
        "labels": list(labels),
    }
    return hashlib.blake2b(to_json(content).encode(), digest_size=16).hexdigest()


def _identity(source: _Source) -> list[int | str]:
    return [source.index, source.item.path, source.item.label, source.size, source.mtime_ns]


def _check_same(journal: Journal, fingerprint: str, out: Path) -> None:
    known = journal.records.get(_PLAN)
    if known is not None and known["fingerprint"] == fingerprint:
        return
    # A call that failed before it stored a video leaves nothing that another could be mixed with.
    if not any(record.get("indices") for record in journal.records.values()):
        journal.clear()
        journal.append(_PLAN, fingerprint=fingerprint)
    else:
        raise ConfigError(
            f"{out}: holds shards of another list, other videos or other options; give an empty folder or remove it"
        )


def _is_done(journal: Journal, out: Path, name: str) -> bool:
    record, path = journal.records.get(name), out / name
    return record is not None and path.is_file() and path.stat().st_size == record["size"]


def _write_pending(pending: Sequence[_Planned], journal: Journal, out: Path, workers: int, time_limit: float) -> None:
    """Probe the videos of all shards in parallel, and write each shard once all its videos are probed."""
    shard_of = {source.index: shard for shard in pending for source in shard.sources}
    looked: dict[str, dict[int, dict[str, Any] | Exception]] = {shard.name: {} for shard in pending}
    tasks = ((source.index, source.file) for shard in pending for source in shard.sources)
    with tqdm(total=len(shard_of), unit="video", desc="shards", disable=None) as bar:
        for (index, _), outcome in run_each(_look, tasks, workers, time_limit):
            shard = shard_of[index]
            looked[shard.name][index] = outcome
            if len(looked[shard.name]) == len(shard.sources):
                _write_shard(shard, looked.pop(shard.name), journal, out)
            bar.update()


def _look(task: tuple[int, str]) -> dict[str, Any]:
    with reading(task[1]):
        info = probe(task[1])
    return {"num_frames": info.num_frames, "width": info.width, "height": info.height, "codec": info.codec}


def _write_shard(shard: _Planned, looked: dict[int, dict[str, Any] | Exception], journal: Journal, out: Path) -> None:
    """Write a shard and record it; a video that could be probed and cannot be copied is left out as well."""
    while True:
        try:
            size = _write_tar(shard, looked, out / shard.name)
            break
        except _CopyError as error:
            # The tar file ends within this video, so it is written again without it.
            looked[error.index] = error.cause
    found = {source.index: looked[source.index] for source in shard.sources}
    left_out = [
        asdict(failure_of(source.index, source.item.path, about))
        for source in shard.sources
        if isinstance(about := found[source.index], Exception)
    ]
    indices = [index for index, about in found.items() if not isinstance(about, Exception)]
    journal.append(shard.name, size=size, indices=indices, left_out=left_out)


class _CopyError(Exception):
    """The video of this index in the list cannot be copied."""

    def __init__(self, index: int, cause: VideoError) -> None:
        super().__init__(index, cause)
        self.index = index
        self.cause = cause


def _write_tar(shard: _Planned, looked: Mapping[int, dict[str, Any] | Exception], target: Path) -> int:
    """Write the videos that could be probed; return the size in bytes."""
    with staged(target) as part:
        with tarfile.open(part, "w") as tar:
            for source in shard.sources:
                about = looked[source.index]
                if isinstance(about, Exception):
                    continue
                try:
                    with SourceFile(source.file, {"size": source.size, "mtime_ns": source.mtime_ns}) as video:
                        tar.addfile(_entry(source.index, _extension(source.file), source.size), video)
                except VideoError as error:
                    raise _CopyError(source.index, error) from error
                about = {"index": source.index, "label": source.item.label, "path": source.item.path, **about}
                text = to_json(about).encode()
                tar.addfile(_entry(source.index, "json", len(text)), io.BytesIO(text))
        return part.stat().st_size


def _entry(index: int, extension: str, size: int) -> tarfile.TarInfo:
    # No metadata of the machine or the time: the same list gives the same bytes.
    entry = tarfile.TarInfo(f"{key_of(index)}.{extension}")
    entry.size = size
    return entry


def _extension(file: str) -> str:
    extension = Path(file).suffix[1:].lower()
    # Avoid '.json' (the metadata file), an empty extension, and what a tar header cannot hold.
    return extension if extension.isalnum() and extension.isascii() and extension != "json" else "video"
