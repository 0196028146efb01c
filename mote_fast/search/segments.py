"""Rows of an index in one file: float16 vectors that are mapped into memory, and their ids, paths and time spans.

A file is never changed once it is written. Rows that were deleted later are marked in a second, small file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from mote_fast.errors import CheckpointError, ConfigError, ListError, quoted
from mote_fast.runtime.files import staged
from mote_fast.runtime.reading import check_inside
from mote_fast.runtime.weights import read_weights, save_tensors
from mote_fast.search.rows import IndexRow, encoded

# Tensors of a file of rows, and of one that marks the deleted ones.
_ROWS = {
    "vectors": torch.float16,
    "ids": torch.uint8,
    "id_ends": torch.int64,
    "paths": torch.uint8,
    "path_ends": torch.int64,
    "spans": torch.float64,
}
_DELETED = {"deleted": torch.bool}


class Segment:
    """A file of rows, and which of them are deleted; N rows.

    Args:
        folder: of the index.
        name: of the file of rows.
        marks: name of the file that marks the deleted rows; None if there are none.
        count: N.
        dimension: d.

    Attributes:
        vectors: float16 [N, d], mapped.
        deleted: bool [N]; None if no row is deleted.

    Raises:
        FileNotFoundError: a file is missing, as after another process has merged it into another.
        ListError: a file is damaged, or is a link that leads out of the folder.
    """

    def __init__(self, folder: Path, name: str, marks: str | None, count: int, dimension: int) -> None:
        self.path, self.name, self.marks, self.count = folder / name, name, marks, count
        found = _read(folder, name, _ROWS)
        self.vectors, self._spans = found["vectors"], found["spans"]
        self._texts = {key: (found[f"{key}s"], found[f"{key}_ends"]) for key in ("id", "path")}
        self._check("vectors", self.vectors, (count, dimension))
        self._check("spans", self._spans, (count, 2))
        for key, (content, ends) in self._texts.items():
            self._check(f"{key}_ends", ends, (count,))
            last = int(ends[-1]) if count else 0
            if content.ndim != 1 or len(content) != last or int(ends[0]) < 0 or bool((ends[1:] < ends[:-1]).any()):
                raise ListError(f"{self.path}: damaged (its {key}s do not fit together); build the index again")
        self.deleted: Tensor | None = None
        if marks is not None:
            self.deleted = _read(folder, marks, _DELETED)["deleted"]
            self._check("deleted", self.deleted, (count,))

    @property
    def alive(self) -> int:
        """The number of rows that are not deleted."""
        return self.count - (0 if self.deleted is None else int(self.deleted.sum()))

    @cached_property
    def places(self) -> dict[str, int]:
        """The position of each row by its id, deleted ones included.

        Raises:
            ListError: an id occurs twice.
        """
        found = {name: at for at, name in enumerate(self._every("id"))}
        if len(found) < self.count:
            raise ListError(f"{self.path}: damaged (an id occurs twice); build the index again")
        return found

    @cached_property
    def moments(self) -> dict[str, list[str]]:
        """The ids of the rows with a time span that are not deleted, by their path."""
        alive = [True] * self.count if self.deleted is None else (~self.deleted).tolist()
        timed = (~self._spans[:, 0].isnan()).tolist()
        found: dict[str, list[str]] = {}
        if not any(timed):
            return found
        for name, path, *own in zip(self._every("id"), self._every("path"), alive, timed, strict=True):
            if path and all(own):
                found.setdefault(path, []).append(name)
        return found

    def holds(self, at: int) -> bool:
        """Whether a row is not deleted."""
        return self.deleted is None or not bool(self.deleted[at])

    def row(self, at: int) -> IndexRow:
        """Return a row.

        Raises:
            ListError: it is damaged.
        """
        return self._row(self._text("id", at), self._text("path", at), *self._spans[at].tolist())

    def without(self, deleted: Tensor | None) -> tuple[list[IndexRow], Tensor]:
        """Return the rows that a mask, bool [N], leaves, and their vectors, float16 [n, d].

        Raises:
            ListError: one is damaged.
        """
        alive = torch.ones(self.count, dtype=torch.bool) if deleted is None else ~deleted
        every = zip(self._every("id"), self._every("path"), self._spans.tolist(), alive.tolist(), strict=True)
        return [self._row(name, path, *span) for name, path, span, own in every if own], self.vectors[alive]

    def _row(self, name: str, path: str, start: float, end: float) -> IndexRow:
        span = (None, None) if math.isnan(start) and math.isnan(end) else (start, end)
        try:
            return IndexRow(name, path or None, *span)
        except ConfigError as error:
            raise ListError(f"{self.path}: damaged ({error}); build the index again") from error

    def _text(self, key: str, at: int) -> str:
        content, ends = self._texts[key]
        start = int(ends[at - 1]) if at else 0
        return content[start : int(ends[at])].numpy().tobytes().decode("utf-8", "surrogateescape")

    def _every(self, key: str) -> list[str]:
        content, ends = self._texts[key]
        whole, texts, start = content.numpy().tobytes(), [], 0
        for end in ends.tolist():
            texts.append(whole[start:end].decode("utf-8", "surrogateescape"))
            start = end
        return texts

    def _check(self, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(tensor.shape) != shape:
            raise ListError(
                f"{self.path}: damaged ({name} has the shape {list(tensor.shape)} instead of {list(shape)}); build the "
                "index again"
            )


def write_rows(path: Path, rows: Sequence[IndexRow], vectors: Tensor) -> None:
    """Write a file of rows; it appears complete or not at all.

    Args:
        path: of the file, new.
        rows: N rows.
        vectors: float16 [N, d].

    Raises:
        ConfigError: the file cannot be written.
    """
    spans = [(row.start, row.end) if row.start is not None else (math.nan, math.nan) for row in rows]
    tensors = {"vectors": vectors.contiguous(), "spans": torch.tensor(spans, dtype=torch.float64).reshape(-1, 2)}
    for key, texts in (("id", [row.id for row in rows]), ("path", [row.path or "" for row in rows])):
        parts = [encoded(text) for text in texts]
        whole = b"".join(parts)
        tensors[f"{key}s"] = torch.frombuffer(bytearray(whole), dtype=torch.uint8) if whole else torch.empty(0).byte()
        tensors[f"{key}_ends"] = torch.tensor([len(part) for part in parts], dtype=torch.int64).cumsum(0)
    with staged(path) as part:
        save_tensors(tensors, part)


def write_marks(path: Path, deleted: Tensor) -> None:
    """Write the file that marks the deleted rows, bool [N], as ``write_rows`` does."""
    with staged(path) as part:
        save_tensors({"deleted": deleted}, part)


def _read(folder: Path, name: str, expected: dict[str, torch.dtype]) -> dict[str, Tensor]:
    path = folder / name
    # A link or a file that is gone is told from a damaged one.
    path.lstat()
    try:
        check_inside(path, folder)
        found = read_weights(path)
    except CheckpointError as error:
        if not path.exists():
            raise FileNotFoundError(path) from error
        raise ListError(f"{error}; build the index again") from error
    except OSError as error:
        raise ListError(f"{path}: cannot be read ({error}); build the index again") from error
    if {key: value.dtype for key, value in found.items()} != expected:
        held = {key: str(value.dtype) for key, value in found.items()}
        raise ListError(f"{path}: damaged (holds {quoted(held)}); build the index again")
    return found
