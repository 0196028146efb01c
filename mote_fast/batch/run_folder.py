"""The folder of an output: its record, its plan, and a file of rows for each block that is done.

A file of rows appears complete or not at all, under a name that the plan gives to its videos. So a process that is
killed at any instant loses the blocks that it had in its hands and nothing else, and no video can have two rows.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mote_fast.batch.run_plan import Block, blocks_of, write_part
from mote_fast.batch.run_record import RECORD_FILE, RunRecord, check_facts, read_record, write_record
from mote_fast.batch.video_sources import Item
from mote_fast.errors import ConfigError, ListError, one_line
from mote_fast.runtime.extras import required
from mote_fast.runtime.files import make_folder, staged
from mote_fast.runtime.lock import FileLock
from mote_fast.runtime.parts import remove_abandoned

# Readers of Parquet folders leave out what begins with "_".
LOCK_FILE = "_lock"


class Summary(NamedTuple):
    """How far a run is.

    Attributes:
        planned: videos of the run.
        done: videos that have a row.
        failed: how many of these have no result, by kind of fault, see docs/batch.md.
    """

    planned: int
    done: int
    failed: Mapping[str, int]


class RunFolder:
    """The folder of a run.

    Args:
        path: of the folder.

    Raises:
        ListError: it holds no run, or a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = read_record(path)

    @staticmethod
    def prepare(path: Path) -> None:
        """Make the folder, and check that it holds nothing, or a run.

        Raises:
            ConfigError: it holds something else, or cannot be written.
        """
        make_folder(path, "the output")
        if not os.path.lexists(path / RECORD_FILE):
            foreign = [name for name in sorted(os.listdir(path)) if name[0] not in "._"]
            if foreign:
                raise ConfigError(f"{path}: holds other files ({foreign[0]}); give a folder that is new or empty")

    @classmethod
    @contextmanager
    def opened(
        cls,
        path: Path,
        facts: Mapping[str, Any],
        request: Mapping[str, Any],
        pieces: Iterable[Sequence[Item]],
        block: int | None,
    ) -> Iterator[RunFolder]:
        """Begin a run, or go on with one, and hold its lock; videos that it does not know yet are added to its plan.

        The folder is that of ``prepare``.

        Args:
            path: of the folder: empty, or of a run with the same facts.
            facts: see ``RunRecord``.
            request: see ``RunRecord``.
            pieces: the videos.
            block: videos of a block, see ``write_part``.

        Raises:
            ConfigError: the folder belongs to another run, cannot be written or is in use.
            ListError: the videos cannot be read, or an id is given twice; the run is as it was.
        """
        with FileLock(path / LOCK_FILE, str(path)):
            record = RunRecord(facts, request)
            if os.path.lexists(path / RECORD_FILE):
                record = read_record(path)
                check_facts(path, record.facts, facts)
            remove_abandoned(path)
            part = write_part(path, len(record.parts), pieces, record.parts, block)
            if part is not None:
                write_record(path, RunRecord(record.facts, record.request, (*record.parts, part)))
            yield cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of a run that exists.

        Raises:
            ConfigError: another process holds it, or the folder cannot be written.
        """
        make_folder(self.path, "the output")
        with FileLock(self.path / LOCK_FILE, str(self.path)):
            remove_abandoned(self.path)
            self.record = read_record(self.path)
            yield

    def check(self, facts: Mapping[str, Any]) -> None:
        """Check that rows made by these facts belong here; see ``check_facts``."""
        check_facts(self.path, self.record.facts, facts)

    def pending(self) -> Generator[Block]:
        """Yield the blocks that have no file yet."""
        done = self._done()
        for part in self.record.parts:
            yield from blocks_of(self.path, part, done)

    def done(self) -> int:
        """Return the number of videos that have a row."""
        files = self._done()
        return sum(
            part.size(block) for part in self.record.parts for block in range(part.blocks) if part.name(block) in files
        )

    def commit(self, name: str, table: Any) -> None:
        """Write the rows of a block; the file appears complete or not at all.

        Raises:
            ConfigError: it cannot be written.
        """
        parquet = required("pyarrow.parquet", "a batch", "batch")
        with staged(self.path / name) as part:
            parquet.write_table(table, part, compression="zstd")

    def summary(self) -> Summary:
        """Count the rows of all files.

        Raises:
            ListError: a file is damaged.
        """
        done, failed = 0, Counter[str]()
        for table in self.tables(["error_kind"]):
            kinds = table.column("error_kind")
            done += len(kinds)
            failed.update(kind for kind in kinds.to_pylist() if kind is not None)
        return Summary(self.record.videos, done, dict(sorted(failed.items())))

    def tables(self, columns: list[str]) -> Generator[Any]:
        """Yield columns of the files that are done, in their order.

        Raises:
            ListError: a file is damaged.
        """
        for name in sorted(self._done()):
            yield self._read(name, columns)

    def faults(self, kinds: Collection[str] | None) -> Generator[Block]:
        """Yield, of each file that is done, the videos with a fault of some kinds; None takes all kinds."""
        done = self._done()
        for part in self.record.parts:
            absent = {part.name(block) for block in range(part.blocks)} - done
            for block in blocks_of(self.path, part, absent):
                table = self._read(block.name, ["id", "error_kind"])
                rows = zip(*(table.column(name).to_pylist() for name in ("id", "error_kind")), strict=True)
                failed = {name for name, kind in rows if kind is not None and (kinds is None or kind in kinds)}
                if failed:
                    yield Block(block.name, [item for item in block.items if item.id in failed])

    def replace(self, name: str, table: Any) -> None:
        """Put rows in the place of those with the same ids in a file, all at once.

        Raises:
            ConfigError: it cannot be written; the file is as it was.
            ListError: the file is damaged.
        """
        arrow = required("pyarrow", "a batch", "batch")
        earlier = self._read(name, None)
        places = {each: at for at, each in enumerate(table.column("id").to_pylist(), len(earlier))}
        order = [places.get(each, at) for at, each in enumerate(earlier.column("id").to_pylist())]
        self.commit(name, arrow.concat_tables([earlier, table]).take(order))

    def _done(self) -> set[str]:
        """The names of all files of rows that the plan knows."""
        with os.scandir(self.path) as scan:
            there = {entry.name for entry in scan if entry.name.startswith("part-")}
        return {name for part in self.record.parts for name in map(part.name, range(part.blocks)) if name in there}

    def _read(self, name: str, columns: list[str] | None) -> Any:
        parquet = required("pyarrow.parquet", "a batch", "batch")
        try:
            # Not as a data set: the schema of the one file counts.
            with parquet.ParquetFile(self.path / name) as file:
                return file.read(columns)
        except (OSError, ValueError, KeyError) as error:
            raise ListError(
                f"{self.path / name}: damaged ({one_line(error)}); remove the file, and its videos are done again"
            ) from error
