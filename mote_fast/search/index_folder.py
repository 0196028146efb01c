"""The folder of an index: what it holds now, and the one way in which it changes.

index.json names the files of rows. A change writes new files and then replaces index.json, so that a process that is
killed at any instant leaves the old state or the new one; files that index.json does not name are removed by the next
change. Readers need no lock: they keep the files that they have mapped.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mote_fast.errors import ConfigError, ListError
from mote_fast.runtime.files import write_text
from mote_fast.runtime.lock import FileLock
from mote_fast.runtime.parts import remove_abandoned
from mote_fast.search.graph import build_graph
from mote_fast.search.index_record import RECORD_FILE, IndexRecord, SegmentRecord, read_record
from mote_fast.search.rows import IndexRow
from mote_fast.search.segments import Segment, write_marks, write_rows

LOCK_FILE = "lock"

# Rows of a file at most: what a change holds in memory, 128 MB with 512 numbers each.
SEGMENT_ROWS = 2**17

_OWN_FILES = re.compile(r"(rows|deleted)-[0-9a-f]{32}\.safetensors|graph-[0-9a-f]{32}\.usearch")


class State(NamedTuple):
    """What an index holds at one instant."""

    record: IndexRecord
    segments: tuple[Segment, ...]


class IndexFolder:
    """The folder of an index.

    Args:
        path: of the folder.

    Attributes:
        path: of the folder.
        state: what the index held when it was opened, or at the last ``refresh`` or change by this object.

    Raises:
        ListError: the folder holds no index, or a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = self._read(())

    @classmethod
    def create(cls, path: Path, record: IndexRecord) -> IndexFolder:
        """Make an index without rows.

        Raises:
            ConfigError: the folder holds something already, or cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            # A killed process may have left the lock.
            held = [name for name in os.listdir(path) if name != LOCK_FILE and not name.startswith(".")]
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error})") from error
        with FileLock(path / LOCK_FILE, str(path), wait=True):
            if held or (path / RECORD_FILE).exists():
                what = "an index already" if (path / RECORD_FILE).exists() else "other files"
                raise ConfigError(f"{path}: holds {what}; give a folder that is new or empty")
            remove_abandoned(path)
            write_text(path / RECORD_FILE, record.to_json())
        return cls(path)

    def refresh(self) -> None:
        """See what other processes have changed.

        Raises:
            ListError: the index is damaged or gone.
        """
        self.state = self._read(self.state.segments)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock, for which others are waited for, with the newest state.

        Raises:
            ConfigError: the folder cannot be written.
            ListError: see ``refresh``.
        """
        # A lock in a folder that is gone would make it again.
        read_record(self.path)
        with FileLock(self.path / LOCK_FILE, str(self.path), wait=True):
            self.refresh()
            yield

    def commit(self, dropped: Collection[str], rows: Sequence[IndexRow], vectors: Tensor) -> None:
        """Delete rows and add others, both or neither; within ``writing``. No graph is left, which was of other rows.

        Args:
            dropped: ids of rows, all of which the index has.
            rows: N rows; none of their ids is in what remains.
            vectors: float16 [N, d].

        Raises:
            ConfigError: the folder cannot be written; the index is as it was.
        """
        kept = [_Pending.of(segment, dropped) for segment in self.state.segments]
        kept = [each for each in kept if each.alive]
        rows = list(rows)
        # Files double in size, so that there are few of them, and each row is rewritten a few times only.
        while rows and kept and kept[-1].alive <= len(rows) and kept[-1].alive + len(rows) <= SEGMENT_ROWS:
            earlier, theirs = kept.pop().remaining()
            rows, vectors = earlier + rows, torch.cat([theirs, vectors])
        records = [self._written(each) for each in kept]
        for start in range(0, len(rows), SEGMENT_ROWS):
            end = start + SEGMENT_ROWS
            records.append(self._new_rows(rows[start:end], vectors[start:end]))
        old = self.state.record
        self._replace(replace(old, segments=tuple(records), graph=None))

    def add_graph(self) -> float:
        """Build the graph of all rows, of which there must be some, and return its recall; within ``writing``.

        Raises:
            BackendError: usearch is not installed.
            ConfigError: the folder cannot be written; the index is as it was.
            ListError: the vectors are damaged.
        """
        path = self.path / f"graph-{secrets.token_hex(16)}.usearch"
        record, segments = self.state
        graph = build_graph(path, segments, record.dimension)
        self._replace(replace(record, graph=graph))
        return graph.recall

    def _replace(self, record: IndexRecord) -> None:
        write_text(self.path / RECORD_FILE, record.to_json())
        self.refresh()
        self._sweep()

    def _written(self, pending: _Pending) -> SegmentRecord:
        """Write what has changed of a file of rows."""
        own = pending.segment
        if pending.deleted is own.deleted:
            return SegmentRecord(own.name, own.count, own.marks)
        if pending.alive * 2 < own.count:
            return self._new_rows(*pending.remaining())
        assert pending.deleted is not None
        name = f"deleted-{secrets.token_hex(16)}.safetensors"
        write_marks(self.path / name, pending.deleted)
        return SegmentRecord(own.name, own.count, name)

    def _new_rows(self, rows: Sequence[IndexRow], vectors: Tensor) -> SegmentRecord:
        name = f"rows-{secrets.token_hex(16)}.safetensors"
        write_rows(self.path / name, rows, vectors)
        return SegmentRecord(name, len(rows))

    def _sweep(self) -> None:
        """Remove the files that are no longer named, and what killed processes left."""
        remove_abandoned(self.path)
        named = set(self.state.record.files)
        for entry in list(self.path.iterdir()):
            if _OWN_FILES.fullmatch(entry.name) and entry.name not in named:
                # What cannot be removed now is removed by a later change.
                with suppress(OSError):
                    entry.unlink()

    def _read(self, open_already: Sequence[Segment]) -> State:
        known = {(each.name, each.marks, each.count): each for each in open_already}
        record = read_record(self.path)
        while True:
            try:
                segments = tuple(
                    known.get((each.rows, each.deleted, each.count))
                    or Segment(self.path, each.rows, each.deleted, each.count, record.dimension)
                    for each in record.segments
                )
                return State(record, segments)
            except FileNotFoundError as error:
                # A writer has replaced the file since index.json was read.
                earlier, record = record, read_record(self.path)
                if record == earlier:
                    raise ListError(f"{self.path}: damaged ({error.filename or error} is missing)") from error


class _Pending(NamedTuple):
    """A file of rows, and which of them are to be deleted."""

    segment: Segment
    deleted: Tensor | None

    @classmethod
    def of(cls, segment: Segment, dropped: Collection[str]) -> _Pending:
        places = [segment.places[name] for name in dropped if name in segment.places] if dropped else []
        places = [at for at in places if segment.holds(at)]
        if not places:
            return cls(segment, segment.deleted)
        marks = torch.zeros(segment.count, dtype=torch.bool) if segment.deleted is None else segment.deleted.clone()
        marks[torch.tensor(places)] = True
        return cls(segment, marks)

    @property
    def alive(self) -> int:
        return self.segment.count - (0 if self.deleted is None else int(self.deleted.sum()))

    def remaining(self) -> tuple[list[IndexRow], Tensor]:
        return self.segment.without(self.deleted)
