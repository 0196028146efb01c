"""Encode the videos of a list once with a frozen image tower, and write their frame features."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.feature_files import INDEX_FILE, TENSOR, FeatureFile, FeatureIndex, check_source
from mote_fast.data.items import VideoItem
from mote_fast.data.loaders import LoaderBackend, make_loader
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.errors import ListError
from mote_fast.evaluation.predict import FrameEncoder, encode_videos
from mote_fast.model.classifier import VideoClassifier
from mote_fast.prepare.journal import Journal, file_state
from mote_fast.runtime.files import staged, write_text
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.progress import Progress
from mote_fast.runtime.weights import save_tensors

JOURNAL_FILE = "journal.jsonl"

# Videos of a file: an interruption costs at most these. A long list has larger files, so that they stay few.
VIDEOS_PER_FILE = 128
MAX_FILES = 512

# The name of the journal's first record, which says what the features are made of.
_PLAN = "plan"


class _Part(NamedTuple):
    """The videos of one file: a range of the list."""

    name: str
    videos: range


def write_features(
    model: VideoClassifier,
    dataset: VideoDataset,
    folder: Path,
    source: Mapping[str, Any],
    options: LoaderOptions,
    *,
    encode: FrameEncoder | None = None,
    backend: LoaderBackend = "auto",
    progress: Progress | None = None,
) -> FeatureIndex:
    """Write the frame features of a list and their index; continue where an interrupted call stopped.

    A file appears complete or not at all, the index once all are written. Features have the dtype in which the tower
    gives them, to the last bit. Videos that cannot be read are named in the index.

    Args:
        model: its image tower encodes the frames.
        dataset: the list; clips must not depend on the epoch, so the recipe has no augmentation.
        folder: for the files; empty, or from an earlier call with the same arguments.
        source: what the features are made of, see ``source_of``.
        options: batches and workers.
        encode: see ``encode_videos``.
        backend: see ``make_loader``.
        progress: called with the number of videos done since the last call.

    Raises:
        ConfigError: the folder holds features of something else, cannot be written, or is in use.
        ListError: no video can be read.
        NotFiniteError: features are NaN or infinite.
    """
    with Journal(folder / JOURNAL_FILE) as journal:
        # Videos that changed since an interrupted call would be mixed with what they were before.
        states = _states(dataset.items)
        plan = {**source, "the sizes or times of the videos": states, "the batch size": options.batch_size}
        # A call that failed before it wrote features leaves nothing that others could be mixed with.
        if any(record.get("indices") for record in journal.records.values()):
            check_source(journal.records.get(_PLAN, {}).get("source", {}), plan, folder)
        else:
            journal.clear()
            journal.append(_PLAN, source=plan)
        parts = _parts(len(dataset), options.batch_size)
        pending = [part for part in parts if not _is_done(journal, folder, part.name)]
        if progress is not None:
            progress(len(dataset) - sum(len(part.videos) for part in pending))
        if pending:
            _write_pending(model, dataset, folder, pending, journal, options, encode, backend, progress)
        records = [journal.records[part.name] for part in parts]
        failures = [Failure(**failure) for record in records for failure in record["failures"]]
        made = next((record for record in records if record["indices"]), None)
        if made is None:
            raise ListError(f"not one of {len(dataset)} videos can be read ({failures[0].path}: {failures[0].reason})")
        files = [FeatureFile(record["name"], tuple(record["indices"])) for record in records if record["indices"]]
        index = FeatureIndex(source, tuple(made["shape"]), made["dtype"], tuple(files), tuple(failures))
        write_text(folder / INDEX_FILE, index.document())
    return index


def _parts(videos: int, batch: int) -> list[_Part]:
    """Files of whole batches: an interrupted call then encodes the same batches as an undisturbed one."""
    size = math.ceil(max(VIDEOS_PER_FILE, videos / MAX_FILES) / batch) * batch
    starts = enumerate(range(0, videos, size))
    return [_Part(f"features-{at:06d}.safetensors", range(videos)[start : start + size]) for at, start in starts]


def _states(items: Sequence[VideoItem]) -> str:
    states = [file_state(Path(item.path)) for item in items]
    return hashlib.sha256(to_json(states).encode()).hexdigest()


def _is_done(journal: Journal, folder: Path, name: str) -> bool:
    record = journal.records.get(name)
    if record is None or not record["indices"]:
        return record is not None
    return file_state(folder / name).get("size") == record["size"]


def _write_pending(
    model: VideoClassifier,
    dataset: VideoDataset,
    folder: Path,
    pending: Sequence[_Part],
    journal: Journal,
    options: LoaderOptions,
    encode: FrameEncoder | None,
    backend: LoaderBackend,
    progress: Progress | None,
) -> None:
    """Encode the videos of the parts in list order, and write each part once its last video is done."""
    listed = [index for part in pending for index in part.videos]
    rest = VideoDataset(
        [dataset.items[index] for index in listed],
        dataset.recipe,
        seed=dataset.seed,
        decode_backend=dataset.decode_backend,
        frame_template=dataset.frame_template,
    )
    waiting = list(pending)
    rows: dict[int, Tensor] = {}
    failures: list[Failure] = []
    loader = make_loader(rest, options, backend)
    try:
        for batch, features in encode_videos(model, loader, failures, progress, encode):
            # A batch's own memory, so that a part does not keep all its batches alive.
            rows |= {listed[at]: row.clone() for at, row in zip(batch.indices.tolist(), features.cpu(), strict=True)}
            done = {*rows, *(listed[failure.index] for failure in failures)}
            while waiting and waiting[0].videos[-1] in done:
                _write_part(waiting.pop(0), rows, failures, listed, folder, journal)
        # The last batches may have held no readable video.
        for part in waiting:
            _write_part(part, rows, failures, listed, folder, journal)
    finally:
        loader.close()


def _write_part(
    part: _Part,
    rows: dict[int, Tensor],
    failures: list[Failure],
    listed: Sequence[int],
    folder: Path,
    journal: Journal,
) -> None:
    """Write a file and record it; its rows are removed."""
    own = [replace(failure, index=listed[failure.index]) for failure in failures]
    unread = [asdict(failure) for failure in own if failure.index in part.videos]
    indices = [index for index in part.videos if index in rows]
    if not indices:
        journal.append(part.name, indices=[], failures=unread)
        return
    features = torch.stack([rows.pop(index) for index in indices])
    with staged(folder / part.name) as path:
        save_tensors({TENSOR: features}, path)
        size = path.stat().st_size
    dtype = str(features.dtype).removeprefix("torch.")
    journal.append(part.name, size=size, indices=indices, shape=list(features.shape[1:]), dtype=dtype, failures=unread)
