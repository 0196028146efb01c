"""Exact search: the rows with the largest cosines, block by block, without a copy of all rows in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mote_fast.errors import ListError
from mote_fast.search.segments import Segment

# Rows that are float32 at a time; with 512 numbers each they take 16 MB.
BLOCK = 8192

# Rows have unit length; float16 rounds it by less than this.
LONGEST = 1.01


class Found(NamedTuple):
    """A row by its segment and its position there, and its cosine."""

    segment: Segment
    at: int
    score: float


def best_rows(segments: Sequence[Segment], query: Tensor, topk: int) -> list[Found]:
    """Return the ``topk`` rows most similar to a query, best first; of equal ones, those that were added first.

    Args:
        segments: the rows; those marked as deleted are left out.
        query: float32 [d] on the CPU, of unit length.
        topk: how many.

    Raises:
        ListError: a file's vectors are damaged: not finite, or longer than 1.
    """
    scores = torch.empty(0)
    # Of each kept score: the number of its segment, and its row there.
    places = torch.empty(0, 2, dtype=torch.long)
    block = torch.zeros(BLOCK, len(query))
    for number, segment in enumerate(segments):
        for start in range(0, segment.count, BLOCK):
            part = segment.vectors[start : start + BLOCK]
            # One size for all products, so that equal rows have equal scores.
            block[: len(part)] = part
            found = torch.mv(block, query)[: len(part)]
            if not bool((found.abs() <= LONGEST).all()):
                raise ListError(f"{segment.path}: damaged (vectors not of unit length); build the index again")
            # A later row must be better than all that are kept.
            worst = float(scores[-1]) if len(scores) == topk else float("-inf")
            better = found > worst
            if segment.deleted is not None:
                better &= ~segment.deleted[start : start + BLOCK]
            rows = better.nonzero().flatten()
            if not len(rows):
                continue
            scores = torch.cat([scores, found[rows]])
            places = torch.cat([places, torch.stack([torch.full_like(rows, number), rows + start], dim=1)])
            order = scores.argsort(descending=True, stable=True)[:topk]
            scores, places = scores[order], places[order]
    return [
        Found(segments[number], at, score) for (number, at), score in zip(places.tolist(), scores.tolist(), strict=True)
    ]
