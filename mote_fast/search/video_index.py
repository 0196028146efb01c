"""A collection of videos that is searched by words, by a video or by a vector."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.errors import ConfigError, ListError, MoteError, NotFiniteError, VideoError, one_line, quoted
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.results import VideoEmbedding
from mote_fast.model.video_input import Video
from mote_fast.runtime.checks import check_choice, check_count, check_finite
from mote_fast.runtime.reading import expanded
from mote_fast.search.exact import best_rows
from mote_fast.search.graph import Graph, check_usearch
from mote_fast.search.index_folder import IndexFolder, State
from mote_fast.search.index_model import check_embedding, check_model, embedding_of, model_fingerprint
from mote_fast.search.index_record import IndexRecord
from mote_fast.search.moments import add_moments
from mote_fast.search.rows import Hit, IndexRow, check_distinct

# What becomes of a row whose id the index has already.
Existing: TypeAlias = Literal["raise", "replace", "skip"]

# Videos after which `add_videos` writes what it has: what a kill may cost.
WRITTEN_AT_ONCE = 64


class Index:
    """An index on disk: rows with ids, their vectors, and the model that they belong to.

    Changes are atomic, also if the process is killed. Processes that search need no lock; one writes at a time, and the
    others wait. An object keeps the state that it has read, until ``refresh``. Threads may share it for searching.

    Args:
        folder: of an index that ``create`` made.

    Raises:
        ListError: the folder holds no index, or a damaged one.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = IndexFolder(expanded(folder))
        self._graph: Graph | None = None

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        clf: VideoClassifier,
        *,
        name: str | None = None,
        views: str = "1x1",
        moments: float | None = None,
    ) -> Index:
        """Make an index without rows.

        Args:
            folder: new or empty.
            clf: the model whose embeddings it will hold; it is recorded by the hash of its weights.
            name: of the model, for messages; None takes that of its architecture.
            views: of the videos, see ``VideoClassifier.embed``.
            moments: seconds of a moment: ``add_videos`` then adds a row for each moment of a video, see
                ``VideoClassifier.embed_windows``, and the views must be "1x1". None adds one row for each video.

        Raises:
            ConfigError: the folder holds something or cannot be written, or an argument is malformed.
        """
        name = clf.clip.config.name or "a model without a name" if name is None else name
        record = IndexRecord(name, model_fingerprint(clf), clf.clip.embed_dim, embedding_of(clf, views, moments))
        IndexFolder.create(expanded(folder), record)
        return cls(folder)

    @property
    def folder(self) -> Path:
        """The folder."""
        return self._folder.path

    @property
    def record(self) -> IndexRecord:
        """The model, the width of the vectors, how videos were embedded, and the files."""
        return self._folder.state.record

    def __len__(self) -> int:
        return sum(segment.alive for segment in self._folder.state.segments)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(
            name in segment.places and segment.holds(segment.places[name]) for segment in self._folder.state.segments
        )

    def rows(self) -> Iterator[IndexRow]:
        """Yield the rows in the order in which they were added."""
        for segment in self._folder.state.segments:
            yield from segment.without(segment.deleted)[0]

    def refresh(self) -> None:
        """See what other processes have changed since.

        Raises:
            ListError: the index is damaged or gone.
        """
        self._folder.refresh()

    def add(self, rows: Iterable[IndexRow | str], vectors: Tensor, *, existing: Existing = "raise") -> int:
        """Add rows, all or none.

        Args:
            rows: N rows, or their ids.
            vectors: [N, d], embeddings by the index's model, scaled to unit length and stored as float16.
            existing: for ids that the index has: "raise" adds nothing, "replace" puts the new row at the end in place
                of the old one, "skip" keeps the old one.

        Returns:
            The number of rows added.

        Raises:
            ConfigError: the vectors do not fit, an id is there already or given twice, or the folder cannot be written.
            NotFiniteError: a vector holds NaN or infinity, or zeros alone.
        """
        check_choice("existing", existing, Existing)
        if isinstance(rows, str):
            raise ConfigError("rows must be a list of rows or ids, not one id; use [id]")
        listed = [row if isinstance(row, IndexRow) else IndexRow(row) for row in rows]
        check_distinct(listed)
        halves = self._unit(vectors, len(listed)).half()
        with self._folder.writing():
            known = {row.id for row in listed if row.id in self}
            if known and existing == "raise":
                raise ConfigError(
                    f"{self.folder}: has the id {quoted(min(known))} already; delete it, or add with existing='replace'"
                )
            if known and existing == "skip":
                places = [at for at, row in enumerate(listed) if row.id not in known]
                listed, halves, known = [listed[at] for at in places], halves[places], set()
            if listed:
                self._folder.commit(known, listed, halves)
        return len(listed)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete rows, all or none; return their number.

        Args:
            ids: of rows; the path of a video stands for all of its moments.

        Raises:
            ConfigError: the index has no such row, or the folder cannot be written.
        """
        if isinstance(ids, str):
            raise ConfigError("ids must be a list of ids, not one; use [id]")
        wanted = set(ids)
        with self._folder.writing():
            moments = {name: self._moments(name) for name in wanted if name not in self}
            missing = [name for name, own in moments.items() if not own]
            if missing:
                raise ConfigError(f"{self.folder}: has no row with the id {quoted(min(missing, key=str))}")
            wanted = (wanted - moments.keys()).union(*moments.values())
            if wanted:
                self._folder.commit(wanted, [], torch.empty(0, self.record.dimension, dtype=torch.float16))
        return len(wanted)

    def add_videos(
        self,
        clf: VideoClassifier,
        videos: Iterable[str | os.PathLike[str]],
        *,
        replace: bool = False,
        workers: int | None = None,
        progress: Callable[[VideoEmbedding], object] | None = None,
    ) -> list[VideoEmbedding]:
        """Embed videos and add them, their paths as ids; videos that are in the index are skipped, so that runs resume.

        What is done is written every 64 videos, and when the loop ends in whatever way. In an index of moments a row is
        a moment, its id the path with the time span, as "video.mp4#t=2,4"; each video is written when it is done.

        Args:
            clf: the index's model.
            videos: paths.
            replace: embed and replace those that are in the index too.
            workers: processes that decode, see ``stream_embeddings``; moments take one if the model has a
                ``decode_time_limit``, and none otherwise.
            progress: called with each video's result; with moments its ``embedding`` is [N, d].

        Returns:
            The results that have an error, which are not in the index.

        Raises:
            ConfigError: the index belongs to another model, has videos embedded otherwise, or cannot be written.
            MoteError: the model fails, such as ``NotFiniteError``.
        """
        check_embedding(clf, self.record, self.folder)
        self.refresh()
        paths = dict.fromkeys(_paths(videos))
        wanted = [path for path in paths if replace or not self.has_video(path)]
        if (seconds := self.record.embedding.moments) is not None:
            return add_moments(clf, wanted, seconds, partial(self._add_moments, replace=replace), progress)
        failed: list[VideoEmbedding] = []
        waiting: list[tuple[IndexRow, Tensor]] = []

        def write() -> None:
            if waiting:
                rows, vectors = zip(*waiting, strict=True)
                self.add(rows, torch.stack(vectors), existing="replace" if replace else "skip")
                waiting.clear()

        found = clf.stream_embeddings(wanted, views=self.record.embedding.views, workers=workers)
        with contextlib.closing(found) as results:
            try:
                for result in results:
                    if result.embedding is not None:
                        waiting.append((IndexRow(result.video, result.video), result.embedding.cpu()))
                    elif isinstance(result.error, VideoError):
                        failed.append(result)
                    else:
                        # The model's fault, not the video's.
                        raise result.error or MoteError(f"{result.video}: has no embedding")
                    if progress is not None:
                        progress(result)
                    if len(waiting) == WRITTEN_AT_ONCE:
                        write()
            finally:
                write()
        return failed

    def has_video(self, path: str) -> bool:
        """Whether a video is in the index: as a row whose id is its path, or by its moments."""
        return path in self or bool(self._moments(path))

    def _moments(self, path: str) -> list[str]:
        return [name for segment in self._folder.state.segments for name in segment.moments.get(path, ())]

    def _add_moments(self, path: str, rows: Sequence[IndexRow], vectors: Tensor, replace: bool) -> None:
        """Add all moments of a video, in place of what the index has of it, or not at all if it is there."""
        halves = self._unit(vectors, len(rows)).half()
        with self._folder.writing():
            old = {*self._moments(path), *(row.id for row in rows if row.id in self)}
            if replace or not old:
                self._folder.commit(old, rows, halves)

    def add_approximate(self) -> float:
        """Make ready for ``search(..., approximate=True)``: build a graph of all rows, and measure what it finds.

        Any later change of the rows removes the graph. A sound one is kept.

        Returns:
            The recall: of the ten rows nearest to each of 256 rows, the share that the graph finds.

        Raises:
            BackendError: usearch is not installed.
            ConfigError: the index has no rows, or the folder cannot be written.
            ListError: the index is damaged.
        """
        check_usearch()
        with self._folder.writing():
            if not len(self):
                raise ConfigError(f"{self.folder}: has no rows to search; add videos first")
            if self.record.graph is not None:
                # One that is damaged or gone is built again.
                with contextlib.suppress(ListError):
                    return self._opened(self._folder.state).record.recall
            return self._folder.add_graph()

    def search(
        self,
        query: str | Tensor | Any = None,
        clf: VideoClassifier | None = None,
        *,
        like: Video | None = None,
        topk: int = 10,
        templates: Sequence[str] | None = None,
        approximate: bool = False,
    ) -> list[Hit]:
        """Return the rows most similar to a query, best first; of equal ones, those that were added first.

        Args:
            query: words, which need ``clf``; or a vector [d] by the index's model.
            clf: the index's model.
            like: a video in place of ``query``, as in ``VideoClassifier.embed``; it needs ``clf``.
            topk: how many; all of them if there are fewer.
            templates: prompts with one "{}" each for the words, see ``VideoClassifier.embed_text``.
            approximate: compare the rows that a graph leads to, not all: much faster, and a row may be missed, see
                ``add_approximate``. Only for indexes that you trust, see SECURITY.md.

        Raises:
            BackendError: ``approximate``, and usearch is not installed.
            ConfigError: there is no query, or there are two; the index belongs to another model; a vector or ``topk``
                does not fit; or ``approximate``, and there is no graph of the present rows.
            LabelError: the words are blank.
            VideoError: ``like`` cannot be read.
            ListError: the index is damaged.
        """
        check_count("topk", topk, 1)
        if (query is None) == (like is None):
            raise ConfigError("give one query: words, a vector, or like=VIDEO")
        if templates is not None and not isinstance(query, str):
            raise ConfigError("templates go with a query of words")
        state = self._folder.state
        graph = self._opened(state) if approximate else None
        vector = self._query(query, clf, like, templates)
        hits = []
        for segment, at, score in (
            best_rows(state.segments, vector, topk) if graph is None else graph.best_rows(vector, topk)
        ):
            row = segment.row(at)
            hits.append(Hit(row.id, row.path, score, row.start, row.end))
        return hits

    def _opened(self, state: State) -> Graph:
        record = state.record
        if record.graph is None:
            raise ConfigError(
                f"{self.folder}: has no graph of its present rows; build one (`mote-fast index build INDEX "
                "--approximate`, or add_approximate), or search without approximate"
            )
        # Threads may find it at once; either's is right.
        graph = self._graph
        if graph is None or graph.record != record.graph:
            try:
                graph = self._graph = Graph(self.folder, record.graph, state.segments, record.dimension)
            except FileNotFoundError as error:
                raise ListError(
                    f"{self.folder}: the graph is gone; refresh the index, which another process may have changed, or "
                    "build the graph again"
                ) from error
        return graph

    def _query(
        self, query: Any, clf: VideoClassifier | None, like: Video | None, templates: Sequence[str] | None
    ) -> Tensor:
        if like is None and not isinstance(query, str):
            try:
                given = torch.as_tensor(query)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"a query is words, a vector, or like=VIDEO, not {quoted(query)} ({one_line(error)})"
                ) from error
            return self._unit(given[None], 1)[0]
        if clf is None:
            raise ConfigError("words and videos are embedded by the index's model; give clf")
        if like is not None:
            check_embedding(clf, self.record, self.folder)
            found = clf.embed(like, views=self.record.embedding.views).cpu()
            if found.ndim != 1:
                raise ConfigError(f"like must be one video, got {len(found)}")
            return found
        check_model(clf, self.record, self.folder)
        return clf.embed_text([query], templates)[0].cpu()

    def _unit(self, vectors: Tensor, count: int) -> Tensor:
        """Check vectors, and scale them to unit length: float32 [N, d]."""
        expected = [count, self.record.dimension]
        if not isinstance(vectors, Tensor) or list(vectors.shape) != expected or not vectors.is_floating_point():
            found = list(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
            raise ConfigError(f"vectors must be floating-point numbers {expected}, got {found}")
        wide = vectors.detach().cpu().float()
        check_finite(wide, "vectors")
        if not bool(wide.any(-1).all()):
            raise NotFiniteError("vectors of zeros have no direction")
        return F.normalize(wide, dim=-1)


def _paths(videos: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    if isinstance(videos, str | os.PathLike):
        raise ConfigError("videos must be a list of paths, not one path; use [path]")
    for video in videos:
        if not isinstance(video, str | os.PathLike):
            raise ConfigError(f"videos must be paths, which become their ids, got {quoted(video)}; see add")
        yield os.fspath(video)
