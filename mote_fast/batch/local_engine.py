"""The engine of one machine: one model in this process, processes that decode, one stream over all blocks."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from mote_fast.batch.block_classifier import Classifier
from mote_fast.batch.fault_kinds import FaultKind, kind_of_fault
from mote_fast.batch.output_rows import Row
from mote_fast.batch.run_plan import Block
from mote_fast.batch.video_sources import Item


class Done(NamedTuple):
    """A block whose videos are judged, and its rows."""

    block: Block
    table: Any


# Called with the kind of fault of each video that is judged, or with None.
Judged: TypeAlias = Callable[[FaultKind | None], object]


def run_local(classifier: Classifier, blocks: Iterable[Block], judged: Judged) -> Generator[Done]:
    """Yield the rows of each block, in order; nothing is computed while the caller has them.

    Args:
        classifier: judges the videos; it stays open.
        blocks: taken a few videos ahead.
        judged: see ``Judged``.

    Raises:
        MoteError: what is not about one video.
    """
    begun: deque[Block] = deque()

    def items() -> Iterator[Item]:
        for block in blocks:
            begun.append(block)
            yield from block.items

    rows: list[Row] = []
    with contextlib.closing(classifier.rows(items())) as found:
        for row in found:
            rows.append(row)
            judged(None if row.error is None else kind_of_fault(row.error))
            if len(rows) == len(begun[0].items):
                yield Done(begun.popleft(), classifier.table(rows))
                rows = []
