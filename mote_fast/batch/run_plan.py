"""The videos of a run, in an order that stays: Parquet files that are written before any video is read.

A part of the plan is divided into blocks of equal size, each of which becomes one file of the output: it is there, with
all its videos, or it is not. What a resumed run has still to do follows from the names of the files.
"""

from __future__ import annotations

import os
from collections.abc import Container, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mote_fast.batch.id_digests import IdSet, digests_of, places_of
from mote_fast.batch.video_sources import Item
from mote_fast.errors import ListError, one_line, quoted
from mote_fast.runtime.checks import check_count
from mote_fast.runtime.extras import required
from mote_fast.runtime.files import staged

# Videos of a block are about so many, and more in a long list: so that its output has few files.
LEAST_BLOCK, MOST_BLOCK = 64, 4096
FILES = 4096

# Rows that are read of a plan at a time.
_GROUP = 2**16

MAX_VIDEOS = 2**40


@dataclass(frozen=True)
class PlanPart:
    """Videos that were planned at once.

    Attributes:
        number: of the part, from 0.
        videos: how many.
        block: videos of a block; the last one may have fewer.
    """

    number: int
    videos: int
    block: int

    def __post_init__(self) -> None:
        check_count("number", self.number, 0, 9999)
        check_count("videos", self.videos, 1, MAX_VIDEOS)
        check_count("block", self.block, 1, 2**20)

    @property
    def file(self) -> str:
        """The name of the part's file; readers of Parquet folders leave out what begins with "_"."""
        return f"_plan-{self.number:04d}.parquet"

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return -(-self.videos // self.block)

    def name(self, block: int) -> str:
        """Return the name of the file of a block."""
        return f"part-{self.number:04d}-{block:08d}.parquet"

    def size(self, block: int) -> int:
        """Return the number of videos of a block."""
        return min(self.block, self.videos - block * self.block)


class Block(NamedTuple):
    """Videos whose rows are written at once, and the name of the file."""

    name: str
    items: Sequence[Item]


def block_size(videos: int) -> int:
    """Return how many videos a block has where nothing else is asked for."""
    return min(max(LEAST_BLOCK, -(-videos // FILES)), MOST_BLOCK)


def write_part(
    folder: Path, number: int, pieces: Iterable[Sequence[Item]], earlier: Sequence[PlanPart], block: int | None
) -> PlanPart | None:
    """Write the videos that the earlier parts do not have as another part of the plan.

    Args:
        folder: of the output.
        number: of the new part.
        pieces: videos, all at most once.
        earlier: the plan so far.
        block: videos of a block; None takes ``block_size``.

    Returns:
        The part; None if no video is new.

    Raises:
        ListError: an id is given twice.
        ConfigError: the file cannot be written.
    """
    arrow, parquet = required("pyarrow", "a batch", "batch"), required("pyarrow.parquet", "a batch", "batch")
    schema = arrow.schema([("id", arrow.string()), ("path", arrow.binary())])
    known = IdSet()
    for part in earlier:
        for items in _groups(folder, part):
            known.add(digests_of(item.id for item in items))
    new = IdSet()
    try:
        with staged(folder / f"_plan-{number:04d}.parquet") as path:
            with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
                for items in pieces:
                    digests = digests_of(item.id for item in items)
                    found, again = known.known(digests)
                    if again.any():
                        raise _repeated(items[int(np.flatnonzero(again)[0])])
                    fresh = [items[at] for at in np.flatnonzero(~found).tolist()]
                    new.add(digests if len(fresh) == len(items) else digests_of(item.id for item in fresh))
                    columns = [[item.id for item in fresh], [os.fsencode(item.path) for item in fresh]]
                    arrays = [arrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
                    writer.write_table(arrow.table(arrays, schema=schema), row_group_size=_GROUP)
            if twice := new.repeated():
                raise _first_of(parquet, path, twice)
            if not len(new):
                # The part vanishes with its folder, as that of a failed write.
                raise _NothingNewError
    except _NothingNewError:
        return None
    return PlanPart(number, len(new), block or block_size(len(new)))


class _NothingNewError(Exception):
    """No video is new."""


def blocks_of(folder: Path, part: PlanPart, done: Container[str]) -> Generator[Block]:
    """Yield the blocks of a part whose files are not among ``done``.

    Raises:
        ListError: the plan is damaged.
    """
    if all(part.name(block) in done for block in range(part.blocks)):
        return
    block, waiting = 0, []
    for items in _groups(folder, part):
        waiting += items
        while len(waiting) >= part.size(block) and block < part.blocks:
            name, size = part.name(block), part.size(block)
            if name not in done:
                yield Block(name, waiting[:size])
            del waiting[:size]
            block += 1
            if block == part.blocks:
                break
    if block < part.blocks or waiting:
        raise ListError(f"{folder / part.file}: damaged (has another number of videos than the run)")


def _groups(folder: Path, part: PlanPart) -> Iterator[list[Item]]:
    parquet: Any = required("pyarrow.parquet", "a batch", "batch")
    path = folder / part.file
    try:
        with parquet.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                paths = map(os.fsdecode, table.column("path").to_pylist())
                yield [Item(*pair) for pair in zip(table.column("id").to_pylist(), paths, strict=True)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ListError(f"{path}: cannot be read ({one_line(error)}); the run cannot go on without it") from error


def _first_of(parquet: Any, path: Path, digests: set[bytes]) -> ListError:
    for batch in parquet.ParquetFile(path).iter_batches(_GROUP):
        ids = batch.column("id").to_pylist()
        for at in places_of(ids, digests):
            return _repeated(Item(ids[at], os.fsdecode(batch.column("path")[at].as_py())))
    raise AssertionError("a repeated id is in the plan")


def _repeated(item: Item) -> ListError:
    return ListError(
        f"the id {quoted(item.id)} is given twice (once for {item.path}); every video needs an id of its own, or its "
        "path once"
    )
