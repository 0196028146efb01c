"""Which texts the text tower takes: class names, captions and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from mote_fast.errors import LabelError, quoted
from mote_fast.runtime.text import is_text

# A token of CLIP has at most 32 characters, so that 77 of them hold no more than 2,464. The tokenizer's time grows with
# the square of a word's length: 2,000 characters take a second, a million would take days.
MAX_WORD_CHARACTERS = 2_000


def check_labels(labels: Sequence[str]) -> None:
    """Check a label set.

    Raises:
        LabelError: see ``check_texts``.
    """
    check_texts(labels, "labels", "class name")


def check_texts(texts: Sequence[str], name: str, kind: str) -> None:
    """Check a list of texts.

    Args:
        texts: the list.
        name: what the list is called, for the message.
        kind: what one of its texts is called.

    Raises:
        LabelError: the list is empty, is no list of strings, or has an entry that is blank, has a word of over
            ``MAX_WORD_CHARACTERS``, or holds bytes that are not UTF-8 (lone surrogates).
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence):
        raise LabelError(f"{name} must be a list of {kind}s, not one {type(texts).__name__}; put it into [ ]")
    if len(texts) == 0:
        raise LabelError(f"no {name}: give at least one {kind}")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise LabelError(f"{name}[{position}] is a {type(text).__name__}, expected a string")
        if not text.strip():
            raise LabelError(f"{name}[{position}] is blank: a {kind} needs at least one visible character")
        longest = max(map(len, text.split()))
        if longest > MAX_WORD_CHARACTERS:
            raise LabelError(
                f"{name}[{position}], {quoted(text, 40)}, has a word of {longest} characters, over the limit of "
                f"{MAX_WORD_CHARACTERS}: shorten it"
            )
        if not is_text(text):
            raise LabelError(f"{name}[{position}] {quoted(text)} is not valid Unicode text; write it in UTF-8")
