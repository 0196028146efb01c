"""A model that judges blocks of videos; its decoding processes outlive a block."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from mote_fast.batch.collection_index import described_index
from mote_fast.batch.fault_kinds import kind_of_fault
from mote_fast.batch.output_rows import Numbers, Row, Task, table_of
from mote_fast.batch.run_record import fingerprint_of
from mote_fast.batch.video_sources import Item
from mote_fast.clip.fingerprint import Fingerprint
from mote_fast.data.gpu.decoder_choice import choose_decoder
from mote_fast.data.loading.addresses import Address, is_address
from mote_fast.data.loading.view_frames import CropReader
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError, LabelError, quoted
from mote_fast.model.checkpoint import load
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.label_input import Labels, labels_of
from mote_fast.model.many_videos import TIME_LIMIT, StreamOptions, check_stream, embed_each, rank_each
from mote_fast.model.results import VideoResult
from mote_fast.runtime.checks import check_choice, check_count
from mote_fast.version import __version__

# A model, its name or path, or what makes it where it is needed.
Model: TypeAlias = VideoClassifier | str | os.PathLike[str] | Callable[[], VideoClassifier]

# As in ``VideoClassifier``.
VIEWS: Mapping[Task, str] = {"classify": "3x1", "embed": "1x1"}


class Classifier:
    """Judges blocks of videos: for ``ray.data.Dataset.map_batches`` and for programs of one's own.

    A video that cannot be read, crashes its decoder or takes too long costs its own row, which says why. The processes
    that decode are started once, and end with ``close`` or with this process.

    Args:
        model: a model; its name or path, see ``mote_fast.load``; or a function without arguments that makes it.
        labels: see ``VideoClassifier.classify``; None takes the model's own.
        task: "classify" ranks labels, "embed" gives embeddings.
        views: clips x crops; None takes "3x1" to classify and "1x1" to embed.
        topk: labels of each video.
        numbers: "float32" or "float16", of embeddings.
        workers: processes that decode; None takes one for each core.
        batch_size: see ``VideoClassifier.stream_results``.
        time_limit: seconds for decoding one video.
        path_column: column of a block that has paths or addresses.
        id_column: column of a block that has ids; without it a path is the id.

    Raises:
        LabelError, ConfigError: an argument is malformed.
        BackendError: pyarrow is missing.
    """

    def __init__(
        self,
        model: Model,
        labels: Labels | None = None,
        *,
        task: Task = "classify",
        views: str | None = None,
        topk: int = 5,
        numbers: Numbers = "float32",
        workers: int | None = None,
        batch_size: int | None = None,
        time_limit: float = TIME_LIMIT,
        path_column: str = "path",
        id_column: str = "id",
    ) -> None:
        check_request(labels, task=task, views=views, topk=topk, numbers=numbers)
        check_stream([], StreamOptions(workers, batch_size))
        # Not NaN either.
        if not time_limit > 0:
            raise ConfigError(f"time_limit must be above 0, got {time_limit}")
        self._model = model_of(model)
        self._task: Task = task
        self._numbers: Numbers = numbers
        self._views = self._model.check_views(VIEWS[task] if views is None else views)
        self._topk = topk
        self._columns = (path_column, id_column)
        self._labels = self._labels_of(labels)
        self._options = StreamOptions(workers or os.cpu_count() or 1, batch_size)
        self._time_limit = time_limit
        self._reader: CropReader | None = None
        self._classes: Tensor | None = None
        self.facts = self._facts()
        self.fingerprint = fingerprint_of(self.facts)

    @property
    def labels(self) -> list[str] | None:
        """The labels that are ranked; None of embeddings."""
        return self._labels

    @property
    def index(self) -> dict[str, Any] | None:
        """What a search index says of the embeddings; None of labels."""
        views = f"{self._views.clips}x{self._views.crops}"
        return described_index(self._model, views) if self._task == "embed" else None

    def rows(self, items: Iterable[Item]) -> Generator[Row]:
        """Yield the row of each video, in order, as they come; the videos are read a little ahead."""
        if self._reader is None:
            self._reader = self._model.make_reader(self._options.workers or 1, self._time_limit)
        options = self._options._replace(reader=self._reader)
        taken: list[Item] = []

        def videos() -> Iterator[str | Address]:
            for item in items:
                taken.append(item)
                yield Address(item.path) if is_address(item.path) else item.path

        if self._labels is None:
            found = embed_each(self._model, videos(), self._views, options)
        else:
            if self._classes is None:
                self._classes = self._model.class_features(self._labels)
            found = rank_each(self._model, videos(), self._labels, self._classes, self._views, self._topk, options)
        with contextlib.closing(found):
            for result in found:
                item, error = taken.pop(0), result.error
                if error is not None:
                    # What is not about this video ends the run.
                    kind_of_fault(error)
                value = result.predictions if isinstance(result, VideoResult) else result.embedding
                value = value if error is None else None
                yield Row(item.id, item.path, value, result.num_frames, result.replaced_frames, error)

    def table(self, rows: Sequence[Row]) -> Any:
        """Return rows as an Arrow table."""
        return table_of(rows, self._task, self._model.clip.embed_dim, self._numbers, self.fingerprint)

    def __call__(self, block: Any) -> Any:
        """Judge a block.

        Args:
            block: an Arrow table, a ``pandas.DataFrame``, or columns by name.

        Returns:
            An Arrow table with a row for each video, with the columns that docs/batch.md lists.

        Raises:
            ConfigError: the block lacks the column of paths.
        """
        path_column, id_column = self._columns
        names = getattr(block, "column_names", None) or list(block)
        if path_column not in names:
            raise ConfigError(f"a block of videos needs the column {path_column!r}, has {quoted(list(names))}")
        paths = [str(path) for path in _values(block[path_column])]
        ids = [str(name) for name in _values(block[id_column])] if id_column in names else paths
        return self.table(list(self.rows(Item(*pair) for pair in zip(ids, paths, strict=True))))

    def close(self) -> None:
        """End the processes that decode."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _labels_of(self, labels: Labels | None) -> list[str] | None:
        if self._task == "embed":
            return None
        labels = self._model.classes if labels is None else labels
        if labels is None:
            raise LabelError("no labels: this model records no class names of its own; give a list of them")
        return labels_of(labels)

    def _facts(self) -> dict[str, Any]:
        """What decides the rows, by the names of the messages about another run."""
        model = self._model
        facts: dict[str, Any] = {
            "task": self._task,
            "weights": _weights(model),
            "dtype": model.int8.dtype if model.int8 is not None else str(model.clip.dtype).removeprefix("torch."),
            "views": f"{self._views.clips}x{self._views.crops}",
            "frames": model.frames,
            "decoder": model.decode_backend,
            "loader": choose_decoder(model.loader, model.device).name,
            "pixel aspect": model.pixel_aspect,
            "crops along": model.crops_along,
            "version": __version__,
        }
        if self._labels is None:
            return {**facts, "numbers": self._numbers}
        prompts = model.prompts_for(self._labels)
        texts = (prompts.templates, sorted(prompts.described(self._labels).items()), prompts.weight)
        return {
            **facts,
            "topk": self._topk,
            "labels": f"{len(self._labels)} labels {_hash(self._labels)}",
            "prompts": _hash(texts),
        }


def check_request(
    labels: Labels | None = None,
    *,
    task: Task,
    views: str | None = None,
    topk: int = 5,
    numbers: Numbers = "float32",
) -> None:
    """Check the arguments of ``Classifier`` that decide the rows, without a model.

    Raises:
        LabelError, ConfigError: one is malformed.
    """
    check_choice("task", task, Task)
    check_choice("numbers", numbers, Numbers)
    check_count("topk", topk, 1)
    if views is not None:
        Views.parse(views)
    if labels is not None and task == "embed":
        raise ConfigError("labels are for the task 'classify'; embeddings have none")
    if labels is not None:
        labels_of(labels)


def model_of(model: Model) -> VideoClassifier:
    """Return a model, its experts merged.

    Raises:
        ConfigError: the argument is something else.
    """
    if isinstance(model, str | os.PathLike):
        model = load(Path(model) if isinstance(model, os.PathLike) else model)
    elif not isinstance(model, VideoClassifier) and callable(model):
        model = model()
    if not isinstance(model, VideoClassifier):
        raise ConfigError(f"model must be a model, its name or path, or a function that makes it, got {quoted(model)}")
    return model.eval().fold()


def _weights(model: VideoClassifier) -> str:
    towers = {"image": model.clip.image_fingerprint(), "text": model.clip.text_fingerprint()}
    return Fingerprint().of({**towers, "head": repr(model.head.config)}, dict(sorted(model.head.state_dict().items())))


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode(errors="surrogatepass")).hexdigest()[:16]


def _values(column: Any) -> Sequence[Any]:
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)
