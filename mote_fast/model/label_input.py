"""What may be given as labels: a list of class names, or what can be made into one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from mote_fast.clip.texts import check_labels
from mote_fast.errors import LabelError

# A list or another iterable of class names.
Labels: TypeAlias = Iterable[str]


def labels_of(labels: Any) -> list[str]:
    """Return labels as a list of plain strings.

    Args:
        labels: a list, a tuple, a NumPy array, a pandas column or another iterable of strings, such as a generator.

    Raises:
        LabelError: it is something else, a set, which has no order, or a dictionary; it is empty, or one of its entries
            is no string, blank or cannot be encoded.
    """
    if isinstance(labels, Mapping):
        raise LabelError("labels must be a list, not a dictionary: give list(labels) or list(labels.values())")
    if isinstance(labels, set | frozenset):
        raise LabelError("labels must be a list, not a set, which has no order: give sorted(labels)")
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise LabelError(f"labels must be a list of class names, not one {type(labels).__name__}; put it into [ ]")
    try:
        listed: list[Any] = list(labels)
    except TypeError as error:
        # A NumPy array without axes.
        raise LabelError(f"labels must be a list of class names ({error})") from error
    # NumPy's strings are a class of their own, which JSON and pickle keep.
    listed = [str(label) if isinstance(label, str) else label for label in listed]
    check_labels(listed)
    return listed
