"""Runs over a collection: classify, embed, repeat faults, and how far a run is."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from mote_fast.batch.block_classifier import Classifier, Model, check_request
from mote_fast.batch.fault_kinds import FaultKind
from mote_fast.batch.local_engine import Done, Judged, run_local
from mote_fast.batch.output_rows import Numbers
from mote_fast.batch.ray_engine import LOCAL, Cluster, run_ray
from mote_fast.batch.run_folder import RunFolder, Summary
from mote_fast.batch.run_plan import Block
from mote_fast.batch.video_sources import Columns, Source, read_source
from mote_fast.errors import ConfigError, quoted
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.label_input import Labels, labels_of
from mote_fast.model.many_videos import TIME_LIMIT
from mote_fast.runtime.checks import check_choice, check_count
from mote_fast.runtime.extras import required
from mote_fast.runtime.reading import expanded

EngineName: TypeAlias = Literal["local", "ray"]

# What judges blocks.
Engine: TypeAlias = Callable[[Iterable[Block], Judged], Generator[Done]]


class RunState(NamedTuple):
    """How far a call is.

    Attributes:
        planned: videos of the run, or faults to repeat.
        done: those whose rows are on disk.
        judged: videos that this call has judged; the rows of a few are not on disk yet.
        failed: how many of these have no result, by kind.
    """

    planned: int
    done: int
    judged: int
    failed: Mapping[FaultKind, int]


# Called when a call begins, after each video, and after each file.
RunProgress: TypeAlias = Callable[[RunState], object]


def classify(
    videos: Source,
    output: str | os.PathLike[str],
    *,
    model: Model,
    labels: Labels | None = None,
    views: str = "3x1",
    topk: int = 5,
    engine: EngineName = "local",
    actors: int | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    time_limit: float = TIME_LIMIT,
    address: str = LOCAL,
    durable_every: int | None = None,
    path_column: str = "path",
    id_column: str | None = None,
    root: str | os.PathLike[str] = "",
    progress: RunProgress | None = None,
) -> Summary:
    """Rank labels for each video of a collection, and write a row for each; a run that was killed goes on.

    Args:
        videos: a folder, a pattern, a list, CSV or Parquet; or paths, or paths by their ids. See docs/batch.md.
        output: folder; new, empty, or of the same run, whose videos are then not done again.
        model: see ``Classifier``.
        labels: see ``VideoClassifier.classify``.
        views: clips x crops.
        topk: labels of each video.
        engine: "local": this process has the model. "ray": actors of Ray have models, on one machine or on many, which
            need the files under the same paths; ``model`` is then no model, but its name, a path, or a function.
        actors: of Ray; None takes one for each GPU, or one.
        workers: processes that decode, of each actor; None takes one for each core.
        batch_size: see ``VideoClassifier.stream_results``.
        time_limit: seconds for decoding one video.
        address: of a cluster of Ray; "local" starts one on this machine, "auto" finds the one that runs here.
        durable_every: videos whose rows are written at once: what a kill costs at most, for each actor. None takes 64,
            and more for over 262,144 videos, up to 4096.
        path_column: of a CSV or Parquet file: the paths, or addresses of fsspec.
        id_column: of a CSV or Parquet file: the ids; None takes the hash of each path.
        root: folder that relative paths start from.
        progress: see ``RunProgress``.

    Returns:
        How many videos have a row, and how many of them no result.

    Raises:
        ConfigError: the output belongs to another run, holds something else, is in use or cannot be written.
        ListError: the videos cannot be read, or an id is given twice.
        LabelError: the labels are malformed.
        BackendError: a package is missing, or processes cannot be started here.
    """
    request = {"labels": labels, "task": "classify", "views": views, "topk": topk}
    place = Place(engine, batch_size, time_limit, Cluster(address, actors, workers))
    columns = Columns(path_column, id_column, os.fspath(root))
    return run(videos, output, model, request, place, durable_every, columns, {}, progress)


def embed(
    videos: Source,
    output: str | os.PathLike[str],
    *,
    model: Model,
    views: str = "1x1",
    numbers: Numbers = "float32",
    engine: EngineName = "local",
    actors: int | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    time_limit: float = TIME_LIMIT,
    address: str = LOCAL,
    durable_every: int | None = None,
    path_column: str = "path",
    id_column: str | None = None,
    root: str | os.PathLike[str] = "",
    progress: RunProgress | None = None,
) -> Summary:
    """Embed each video of a collection, as ``VideoClassifier.embed`` does; otherwise as ``classify``.

    Args:
        videos: as in ``classify``, like all arguments but one.
        numbers: "float32" or "float16".
    """
    request = {"task": "embed", "views": views, "numbers": numbers}
    place = Place(engine, batch_size, time_limit, Cluster(address, actors, workers))
    columns = Columns(path_column, id_column, os.fspath(root))
    return run(videos, output, model, request, place, durable_every, columns, {}, progress)


def retry(
    output: str | os.PathLike[str],
    *,
    model: Model,
    only: Collection[FaultKind] | None = None,
    engine: EngineName = "local",
    actors: int | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    time_limit: float = TIME_LIMIT,
    address: str = LOCAL,
    progress: RunProgress | None = None,
) -> Summary:
    """Judge the videos of a run that have no result once more; their rows are replaced, one file at a time.

    Args:
        output: folder of the run.
        model: the run's.
        only: kinds of faults; None takes all.
        engine: as in ``classify``, like the others.

    Raises:
        ConfigError: the model is another, or the output is in use or cannot be written.
        ListError: the folder holds no run, or a damaged one.
        BackendError: see ``classify``.
    """
    for kind in only or ():
        check_choice("only", kind, FaultKind)
    folder = RunFolder(expanded(output))
    request = {name: folder.record.request.get(name) for name in _REQUEST if name in folder.record.request}
    place = Place(engine, batch_size, time_limit, Cluster(address, actors, workers))
    judge = place.prepare(model, request)
    with contextlib.closing(judge), folder.locked():
        folder.check(judge.facts)
        failed = folder.summary().failed
        planned = sum(count for kind, count in failed.items() if only is None or kind in only)
        _judge(judge.run, folder.faults(only), folder.replace, _Count(planned, 0, progress))
        return folder.summary()


def status(output: str | os.PathLike[str]) -> Summary:
    """Count the rows of a run, also while it goes on.

    Raises:
        ListError: the folder holds no run, or a damaged one.
    """
    return RunFolder(expanded(output)).summary()


class Place(NamedTuple):
    """Where and how videos are judged, which decides no row; see ``classify``."""

    engine: EngineName
    batch_size: int | None
    time_limit: float
    cluster: Cluster

    def prepare(self, model: Model, request: Mapping[str, Any]) -> Prepared:
        """Return what judges videos.

        Raises:
            ConfigError: an argument is malformed.
            BackendError: the engine's package is missing.
        """
        check_choice("engine", self.engine, EngineName)
        options = {"batch_size": self.batch_size, "time_limit": self.time_limit, **request}
        if self.cluster.actors is not None:
            check_count("actors", self.cluster.actors, 1)
        if self.engine == "local":
            if self.cluster.actors is not None or self.cluster.address != LOCAL:
                raise ConfigError("actors and an address are those of the engine 'ray'")
            classifier = Classifier(model, workers=self.cluster.workers, **options)
            run = partial(run_local, classifier)
            return Prepared(classifier.facts, classifier.labels, classifier.index, run, classifier)
        required("ray", "the engine 'ray'", "ray")
        if isinstance(model, VideoClassifier):
            raise ConfigError("the engine 'ray' makes the model in its actors: give a name, a path, or a function")
        # This model says what the rows are made of, and is then given up.
        classifier = Classifier(model, **options)
        make = partial(_make, model, {**options, "labels": classifier.labels})
        run = partial(run_ray, make, classifier.fingerprint, self.cluster)
        return Prepared(classifier.facts, classifier.labels, classifier.index, run)


@dataclass(frozen=True)
class Prepared:
    """What judges videos.

    Attributes:
        facts: what the rows are made of.
        labels: those that are ranked.
        index: what an index says of the embeddings; None of labels.
        run: the engine.
        classifier: what computes in this process; None if others do.
    """

    facts: Mapping[str, Any]
    labels: Sequence[str] | None
    index: Mapping[str, Any] | None
    run: Engine
    classifier: Classifier | None = None

    def close(self) -> None:
        """End the processes of this one."""
        if self.classifier is not None:
            self.classifier.close()


def _make(model: Model, options: Mapping[str, Any], workers: int) -> Classifier:
    return Classifier(model, workers=workers, **options)


def run(
    videos: Source,
    output: str | os.PathLike[str],
    model: Model,
    request: Mapping[str, Any],
    place: Place,
    durable_every: int | None,
    columns: Columns,
    chosen: Mapping[str, Any],
    progress: RunProgress | None,
) -> Summary:
    """Do what ``classify`` and ``embed`` have in common.

    Args:
        videos: as in ``classify``, like all that is not named here.
        columns: where the paths and ids are.
        request: arguments of ``Classifier`` that decide the rows.
        place: where.
        chosen: how a command chose the model, which ``mote-fast batch retry`` repeats.
    """
    if durable_every is not None:
        check_count("durable_every", durable_every, 1, 2**20)
    if (labels := request.get("labels")) is not None:
        # An iterable may be read once.
        request = {**request, "labels": labels_of(labels)}
    # What needs no model is told before one is fetched or made.
    check_request(**request)
    found = read_source(videos, columns)
    pieces = itertools.chain([next(found)], found)
    path = expanded(output)
    RunFolder.prepare(path)
    judge = place.prepare(model, request)
    recorded = {**request, "labels": judge.labels, "options": dict(chosen), "index": judge.index}
    with (
        contextlib.closing(judge),
        RunFolder.opened(path, judge.facts, recorded, pieces, durable_every) as folder,
    ):
        _judge(judge.run, folder.pending(), folder.commit, _Count(folder.record.videos, folder.done(), progress))
        return folder.summary()


# What a record says of the arguments of ``Classifier``.
_REQUEST = ("labels", "task", "views", "topk", "numbers")


class _Count:
    """Counts for ``RunProgress``."""

    def __init__(self, planned: int, done: int, progress: RunProgress | None) -> None:
        self._planned, self._done, self._progress = planned, done, progress
        self._judged, self._failed = 0, Counter[FaultKind]()
        self._tell()

    def judge(self, kind: FaultKind | None) -> None:
        self._judged += 1
        if kind is not None:
            self._failed[kind] += 1
        self._tell()

    def write(self, videos: int) -> None:
        self._done += videos
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(RunState(self._planned, self._done, self._judged, dict(self._failed)))


def _judge(judge: Engine, blocks: Iterable[Block], write: Callable[[str, Any], None], count: _Count) -> None:
    with contextlib.closing(judge(blocks, count.judge)) as finished:
        for block, table in finished:
            write(block.name, table)
            count.write(len(block.items))


def kinds_of(names: Iterable[str]) -> list[FaultKind]:
    """Return kinds of faults by their names.

    Raises:
        ConfigError: there is no such kind.
    """
    known: tuple[FaultKind, ...] = get_args(FaultKind)
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no kind of fault {quoted(name)}; the kinds are {', '.join(known)}")
    return [kind for kind in known if kind in names]
