"""The rows of an output: what a model says of each video, or why it says nothing, as an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from mote_fast.batch.fault_kinds import kind_of_fault
from mote_fast.errors import MoteError
from mote_fast.model.results import Prediction
from mote_fast.runtime.extras import required
from mote_fast.runtime.text import printable

Task: TypeAlias = Literal["classify", "embed"]

# How embeddings are stored.
Numbers: TypeAlias = Literal["float32", "float16"]


class Row(NamedTuple):
    """What is known of a video.

    Attributes:
        id: of the video.
        path: of the video.
        value: its labels or its embedding; None if there is an error.
        num_frames: of the whole video; None if they could not be counted.
        replaced_frames: frames that could not be decoded, whose neighbors stand in for them.
        error: why there is no value.
    """

    id: str
    path: str
    value: list[Prediction] | Tensor | None
    num_frames: int | None
    replaced_frames: int
    error: MoteError | None


def table_of(rows: Sequence[Row], task: Task, width: int, numbers: Numbers, fingerprint: str) -> Any:
    """Return rows as a table with the columns that docs/batch.md lists.

    Args:
        rows: the rows.
        task: what the model was asked.
        width: d, of embeddings.
        numbers: of embeddings.
        fingerprint: of the run.

    Raises:
        BackendError: pyarrow is missing.
        MoteError: the error of a row that is not about its video.
    """
    arrow = required("pyarrow", "a batch", "batch")
    columns: dict[str, Any] = {
        "id": arrow.array([row.id for row in rows], arrow.string()),
        # A name that is not UTF-8 has backslashes here, and its bytes in the plan.
        "path": arrow.array([printable(row.path) for row in rows], arrow.string()),
    }
    if task == "classify":
        for column, name, kind in (
            ("labels", "label", arrow.string()),
            ("indices", "index", arrow.int32()),
            ("scores", "score", arrow.float32()),
        ):
            values = [None if row.value is None else [getattr(each, name) for each in row.value] for row in rows]
            columns[column] = arrow.array(values, arrow.list_(kind))
    else:
        columns["embedding"] = _vectors(rows, width, numbers)
    kinds = [None if row.error is None else kind_of_fault(row.error) for row in rows]
    columns["num_frames"] = arrow.array([row.num_frames for row in rows], arrow.int64())
    columns["replaced_frames"] = arrow.array([row.replaced_frames for row in rows], arrow.int32())
    columns["error_kind"] = arrow.array(kinds, arrow.string())
    messages = [None if row.error is None else printable(str(row.error)) for row in rows]
    columns["error"] = arrow.array(messages, arrow.string())
    columns["fingerprint"] = arrow.array([fingerprint] * len(rows), arrow.string())
    return arrow.table(columns)


def _vectors(rows: Sequence[Row], width: int, numbers: Numbers) -> Any:
    arrow = required("pyarrow", "a batch", "batch")
    values = np.zeros((len(rows), width), numbers)
    for at, row in enumerate(rows):
        if isinstance(row.value, Tensor):
            values[at] = row.value.cpu().numpy()
    absent = arrow.array([row.value is None for row in rows])
    return arrow.FixedSizeListArray.from_arrays(arrow.array(values.reshape(-1)), width, mask=absent)
