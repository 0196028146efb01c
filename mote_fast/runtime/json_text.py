"""JSON, written and read strictly: no NaN and no infinity, which JSON does not have, and no key twice."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from mote_fast.errors import quoted

# Levels of lists and objects: whoever goes through a document may do so by recursion.
MAX_DEPTH = 100


class RepeatedKeyError(ValueError):
    """An object has a key twice, of which a reader would keep only the last."""


def to_json(document: object, indent: int | None = None) -> str:
    """Return a document as JSON text; numbers that are not finite become null.

    The text is ASCII, so that names of any script, and file names that are not UTF-8, are written in any encoding and
    read back unchanged.
    """
    return json.dumps(finite(document), indent=indent, allow_nan=False)


def from_json(text: str) -> Any:
    """Read JSON text.

    Raises:
        ValueError: the text is not JSON, which excludes NaN and infinity, or nests too deep; ``RepeatedKeyError`` if an
            object has a key twice.
    """
    try:
        document = json.loads(text, parse_constant=_refuse, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [child for each in level if isinstance(each, dict | list) for child in _children(each)]
        if not level:
            return document
    raise ValueError("nested too deep")


def _children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def finite(value: Any) -> Any:
    """Return a JSON value with None in place of numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"JSON has no {constant}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise RepeatedKeyError(f"the key {quoted(twice)} is given twice")
    return found
