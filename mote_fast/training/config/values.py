"""Checks YAML values against the annotations of a dataclass."""

from __future__ import annotations

import math
import types
from typing import Any, Literal, Union, get_args, get_origin

from mote_fast.errors import ConfigError, quoted

_NAMES: dict[Any, str] = {
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
# Python refuses to write out integers of thousands of digits, as messages do.
_INTEGER_BITS = 256


def coerce(value: object, annotation: Any) -> Any:
    """Return ``value`` as the type of ``annotation``.

    Annotations are ``str``, ``int``, ``float``, ``bool``, ``None``, ``Literal``, ``tuple`` and unions of them. Only two
    values are converted: an integer is accepted as a float, and so is text such as "1e-4", which YAML 1.1 does not read
    as a number because it has no point.

    Raises:
        ConfigError: the value has another type; the message starts with "must be", so that a caller can prepend a key.
    """
    accepted, result = _fit(value, annotation)
    if not accepted:
        quotes = "; put it in quotes" if _takes_text(annotation) and not isinstance(value, list | dict | None) else ""
        raise ConfigError(f"must be {describe(annotation)}, got {show(value)}{quotes}")
    return result


def describe(annotation: Any) -> str:
    """Describe in words what an annotation accepts, such as "an integer or null"."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _either([repr(choice) for choice in parts])
    if _is_union(origin):
        return _either([describe(part) for part in parts])
    if origin is tuple:
        length = "" if parts[-1] is Ellipsis else f"{len(parts)} "
        return f"a list of {length}{_NAMES[parts[0]].split()[-1]}s"
    return _NAMES[annotation]


def show(value: object) -> str:
    """Format a value as YAML, on one line; a long one is cut short."""
    plain = {None: "null", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else quoted(value)


def _fit(value: object, annotation: Any) -> tuple[bool, Any]:
    """Return whether ``value`` fits, and the converted value."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if _is_union(origin):
        return next((fit for part in parts if (fit := _fit(value, part))[0]), (False, None))
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in parts), value
    if origin is tuple:
        return _fit_tuple(value, parts)
    if annotation is float:
        number = _number(value)
        return number is not None, number
    # Exact types: True is not an integer, and 8.0 is not a number of frames.
    fits = type(value) is annotation
    return fits and not (isinstance(value, int) and value.bit_length() > _INTEGER_BITS), value


def _fit_tuple(value: object, parts: tuple[Any, ...]) -> tuple[bool, Any]:
    if not isinstance(value, list | tuple):
        return False, None
    expected = (parts[0],) * len(value) if parts[-1] is Ellipsis else parts
    if len(expected) != len(value):
        return False, None
    fits = [_fit(item, part) for item, part in zip(value, expected, strict=True)]
    return all(fit[0] for fit in fits), tuple(fit[1] for fit in fits)


def _number(value: object) -> float | None:
    """Return a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _takes_text(annotation: Any) -> bool:
    return annotation is str or str in get_args(annotation)


def _is_union(origin: Any) -> bool:
    return origin is Union or origin is types.UnionType


def _either(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
