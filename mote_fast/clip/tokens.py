"""Tokenizers of small text towers: CLIP's own byte-pair encoding, with the merges that a vocabulary needs."""

from __future__ import annotations

import gzip
import io
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import open_clip

# Two tokens per byte (inside and at the end of a word), and the start and end of a text.
BASE_TOKENS = 2 * 256 + 2


def merges_for(words: Iterable[str]) -> tuple[str, ...]:
    """The merges of CLIP's encoding that compose ``words``, in CLIP's order, each two parts separated by a blank.

    With them, ``small_tokenizer`` splits these words as CLIP's tokenizer does. Other words split into shorter pieces,
    down to bytes: any text can be encoded.
    """
    whole = open_clip.SimpleTokenizer()
    used: set[tuple[str, str]] = set()
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while True:
            pairs = [pair for pair in itertools.pairwise(parts) if pair in whole.bpe_ranks]
            if not pairs:
                break
            best = min(pairs, key=whole.bpe_ranks.__getitem__)
            used.add(best)
            parts = _joined(parts, best)
    return tuple(" ".join(pair) for pair in sorted(used, key=whole.bpe_ranks.__getitem__))


def small_tokenizer(merges: Sequence[str], context_length: int) -> open_clip.SimpleTokenizer:
    """Return open_clip's tokenizer with these merges alone; it knows ``BASE_TOKENS + len(merges)`` tokens."""
    # open_clip reads a file in the format of CLIP's merges, whose first line is a comment. It hands the name to
    # gzip.open, which takes an open file too: no folder for temporary files is needed.
    file: Any = io.BytesIO(gzip.compress("\n".join(("#", *merges)).encode()))
    return open_clip.SimpleTokenizer(file, context_length=context_length)


def _joined(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of ``pair``, from the left."""
    result: list[str] = []
    for part in parts:
        if result and (result[-1], part) == pair:
            result[-1] += part
        else:
            result.append(part)
    return result
