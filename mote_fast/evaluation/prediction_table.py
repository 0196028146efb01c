"""The predictions of each listed video as a Parquet file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mote_fast.errors import ConfigError
from mote_fast.evaluation.accuracy import Ranked, rank
from mote_fast.evaluation.evaluate import Evaluation, SplitResult
from mote_fast.evaluation.protocol_names import FULL_CLASS, RUNNING
from mote_fast.runtime.text import printable


def check_parquet() -> None:
    """Check that Parquet files can be written.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            'predictions are saved as Parquet, which needs pyarrow: pip install "mote_fast[train]"'
        ) from error


def prediction_parquet(evaluation: Evaluation) -> bytes:
    """Return a Parquet file with one row for each listed video, in the order of the lists.

    Columns: ``split``, and ``position`` in its list; ``path``, a byte that is not UTF-8 as a backslash sequence;
    ``label`` and ``label_name``, or lists ``labels`` and ``label_names`` where videos have several; ``failed`` and
    ``reason`` (null unless failed); and for each of the two scores, null where failed, the indices of the best five
    labels (``running_top5``, ``full_class_top5``) and the scores of all classes (``running_scores``, float64 because
    they are nearly uniform, and ``full_class_scores``, float32).

    Raises:
        ConfigError: pyarrow is not installed.
    """
    check_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    reasons = {failure.path: failure.reason for failure in evaluation.failures}
    tables = [_table(pa, result, reasons) for result in evaluation.lists]
    buffer = io.BytesIO()
    pq.write_table(pa.concat_tables(tables), buffer, compression="zstd")
    return buffer.getvalue()


def _table(pa: Any, result: SplitResult, reasons: dict[str, str]) -> Any:
    items = result.split.items
    failed = (result.rows < 0).tolist()
    running, full_class = (_best(result, score) for score in (RUNNING, FULL_CLASS))
    every = [-1 if bad else place for place, bad in enumerate(failed)]
    rows = result.rows.tolist()
    predictions = result.predictions
    columns = {
        "split": pa.array([printable(result.split.name)] * len(items)),
        "position": pa.array(range(len(items)), pa.int32()),
        "path": pa.array([printable(item.path) for item in items]),
        **_label_columns(pa, result),
        "failed": pa.array(failed),
        "reason": pa.array(
            [printable(reasons[item.path]) if bad else None for item, bad in zip(items, failed, strict=True)],
            pa.string(),
        ),
        "running_top5": pa.array(_rows(running, every, np.int32), pa.list_(pa.int32())),
        "full_class_top5": pa.array(_rows(full_class, every, np.int32), pa.list_(pa.int32())),
        "running_scores": pa.array(_rows(predictions.running, rows, np.float64), pa.list_(pa.float64())),
        "full_class_scores": pa.array(_rows(predictions.full_class, rows, np.float32), pa.list_(pa.float32())),
    }
    return pa.table(columns)


def _label_columns(pa: Any, result: SplitResult) -> dict[str, Any]:
    items, names = result.split.items, result.split.class_names
    if not result.split.several_labels:
        return {
            "label": pa.array([item.label for item in items], pa.int32()),
            "label_name": pa.array([names[item.label] for item in items]),
        }
    return {
        "labels": pa.array([list(item.labels) for item in items], pa.list_(pa.int32())),
        "label_names": pa.array([[names[label] for label in item.labels] for item in items]),
    }


def _best(result: SplitResult, score: str) -> Tensor:
    """Return the best labels [N, k], see ``Ranked.best``."""
    ranked = result.ranked[score]
    if isinstance(ranked, Ranked):
        return ranked.best
    return rank(ranked.scores, torch.where(ranked.read, torch.arange(len(ranked.read)), -1), result.rows).best


def _rows(values: Tensor, rows: Sequence[int], dtype: type) -> list[np.ndarray | None]:
    """Return the requested rows of ``values [R, K]``, None for a negative row."""
    array = values.numpy().astype(dtype)
    return [None if row < 0 else array[row] for row in rows]
