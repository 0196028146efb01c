"""The approximate search: a graph of all rows of an index by usearch, in a file of its own.

index.json names the graph together with the files of rows that it was built from, and no change of rows keeps it. A
graph of other rows can therefore not be searched.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mote_fast.errors import ConfigError, ListError, one_line
from mote_fast.runtime.extras import required
from mote_fast.runtime.files import staged
from mote_fast.runtime.reading import check_inside, open_regular
from mote_fast.search.exact import LONGEST, Found, best_rows
from mote_fast.search.index_record import GraphRecord
from mote_fast.search.segments import Segment

# Edges of a row, and rows that are looked at while one is added and while one is searched. Of 20,000 random rows of 512
# numbers, the hardest case, these find 98.9 % of the nearest eleven (usearch's own 16, 128 and 64: 77 %), in 1.6 ms; of
# as many rows in 1,000 clusters, all.
CONNECTIVITY = 32
EXPANSION_ADD = 128
EXPANSION_SEARCH = 512

# Rows whose neighbours are searched for both ways after a build, and neighbours of each.
SAMPLE = 256
NEIGHBOURS = 10

# Cosines that differ by less are equal: the sums of two products in float32.
_EQUAL = 1e-5

# Rows that are added at a time, so that Ctrl-C is heard.
_ADDED_AT_ONCE = 4096


class Graph:
    """The graph of an index, mapped into memory.

    Args:
        folder: of the index.
        record: what index.json says of the graph.
        segments: the rows.
        dimension: d.

    Raises:
        BackendError: usearch is not installed.
        FileNotFoundError: the file is gone, as after another process has changed the index.
        ListError: the file is not the one that the record names, or does not fit the rows.
    """

    def __init__(self, folder: Path, record: GraphRecord, segments: Sequence[Segment], dimension: int) -> None:
        self.record = record
        path = folder / record.file
        module = _usearch()
        # usearch trusts what it reads: only the very bytes that were recorded reach it.
        try:
            check_inside(path, folder)
            size, digest = _hash(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ListError(f"{path}: cannot be read ({error})") from error
        if (size, digest) != (record.bytes, record.sha256):
            raise ListError(f"{path}: damaged (not the file that was recorded); {_AGAIN}")
        try:
            about = module.Index.metadata(str(path))
            self._graph = _empty(module, dimension)
            self._graph.view(str(path))
        except Exception as error:
            raise ListError(f"{path}: cannot be opened ({one_line(error)}); {_AGAIN}") from error
        rows = sum(segment.alive for segment in segments)
        found = about["dimensions"], str(about["kind_scalar"]), len(self._graph)
        if found != (dimension, str(self._graph.dtype), rows):
            raise ListError(f"{path}: damaged ({found[2]} rows of {found[0]} numbers, {found[1]}); {_AGAIN}")
        self._segments = segments
        self._ends = np.cumsum([segment.count for segment in segments])
        # Searches share the memory of one thread of usearch.
        self._lock = threading.Lock()

    def best_rows(self, query: Tensor, topk: int) -> list[Found]:
        """Return rows similar to a query as ``mote_fast.search.exact.best_rows`` does, but for those that are missed.

        Raises:
            ListError: the graph names a row that does not exist.
        """
        with self._lock:
            return _searched(self._graph, self._segments, self._ends, query, topk)


def build_graph(path: Path, segments: Sequence[Segment], dimension: int) -> GraphRecord:
    """Build the graph of all rows, and measure what it finds.

    The recall is that of a sample of rows: how many of the ten nearest rows of each, itself not counted, are found; one
    that is exactly as near as the tenth counts as right.

    Args:
        path: of the file, new; it appears complete or not at all.
        segments: the rows.
        dimension: d.

    Raises:
        BackendError: usearch is not installed.
        ConfigError: the file cannot be written.
        ListError: the vectors are damaged.
    """
    graph = _empty(_usearch(), dimension)
    ends = np.cumsum([segment.count for segment in segments])
    threads = torch.get_num_threads()
    rows = []
    for segment, end in zip(segments, ends.tolist(), strict=True):
        alive = torch.arange(segment.count) if segment.deleted is None else (~segment.deleted).nonzero().flatten()
        for part in alive.split(_ADDED_AT_ONCE):
            keys = (part + (end - segment.count)).numpy()
            graph.add(keys.astype(np.uint64), segment.vectors[part].numpy(), threads=threads)
            rows.append(keys)
    keys = np.concatenate(rows)
    sample = keys[np.linspace(0, len(keys) - 1, min(SAMPLE, len(keys))).astype(np.int64)]
    recall = float(np.mean([_recall(graph, segments, ends, int(key)) for key in sample]))
    with staged(path) as part:
        try:
            graph.save(str(part))
        except Exception as error:
            raise ConfigError(f"{path}: cannot be written ({one_line(error)})") from error
        size, digest = _hash(part)
    return GraphRecord(path.name, size, digest, len(sample), recall)


def check_usearch() -> None:
    """Check that usearch is installed.

    Raises:
        BackendError: it is not.
    """
    _usearch()


_AGAIN = "build it again with `mote-fast index build INDEX --approximate`"


def _usearch() -> Any:
    return required("usearch.index", "approximate search", "search")


def _empty(module: Any, dimension: int) -> Any:
    return module.Index(
        ndim=dimension,
        metric="ip",
        dtype="f16",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=EXPANSION_SEARCH,
    )


class _Place(NamedTuple):
    segment: Segment
    at: int


def _place(segments: Sequence[Segment], ends: np.ndarray, key: int) -> _Place:
    number = int(np.searchsorted(ends, key, side="right"))
    if number == len(segments):
        raise ListError(f"the graph names row {key}, and there are {int(ends[-1])}; {_AGAIN}")
    return _Place(segments[number], key - int(ends[number]) + segments[number].count)


def _searched(graph: Any, segments: Sequence[Segment], ends: np.ndarray, query: Tensor, topk: int) -> list[Found]:
    count = min(topk, len(graph))
    if not count:
        return []
    keys = sorted(int(key) for key in graph.search(query.numpy(), count, threads=1).keys)
    places = [_place(segments, ends, key) for key in keys]
    # The scores of exact search, so that one row has one score.
    scores = torch.stack([segment.vectors[at] for segment, at in places]).float() @ query
    if not bool((scores.abs() <= LONGEST).all()):
        raise ListError("the rows that the graph names are damaged (not of unit length); build the index again")
    order = scores.argsort(descending=True, stable=True)
    return [Found(places[number].segment, places[number].at, float(scores[number])) for number in order.tolist()]


def _recall(graph: Any, segments: Sequence[Segment], ends: np.ndarray, key: int) -> float:
    own = _place(segments, ends, key)
    query = own.segment.vectors[own.at].float()
    # One more than asked, because a row finds itself; a copy of it may come before it, and has the same score.
    nearest = [each.score for each in best_rows(segments, query, NEIGHBOURS + 1)][1:]
    if not nearest:
        return 1.0
    found = [each.score for each in _searched(graph, segments, ends, query, NEIGHBOURS + 1)][1:]
    return sum(score >= nearest[-1] - _EQUAL for score in found) / len(nearest)


def _hash(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open_regular(path) as file:
        while part := file.read(2**22):
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()
