"""Argument checks shared by several modules."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, get_args

from mote_fast.errors import ConfigError, NotFiniteError, quoted

if TYPE_CHECKING:
    from torch import Tensor


def check_choice(name: str, value: object, choices: Any) -> None:
    """Check that a value is one of a ``Literal`` type.

    Args:
        name: name of the argument, for the message.
        value: the value given.
        choices: the ``Literal`` type.

    Raises:
        ConfigError: the value is not one of the type's.
    """
    known = get_args(choices)
    if value not in known:
        raise ConfigError(f"{name} must be {', '.join(map(repr, known[:-1]))} or {known[-1]!r}, got {quoted(value)}")


def check_count(name: str, value: object, least: int, most: int = 2**31 - 1) -> None:
    """Check that a value is an integer in a range, as the sizes of a file of strangers need not be.

    Args:
        name: name of the argument, for the message.
        value: the value given.
        least: the smallest allowed.
        most: the largest allowed.

    Raises:
        ConfigError: the value is no integer, or outside the range.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ConfigError(f"{name} must be an integer, got {quoted(value)}")
    number = int(value)
    if not least <= number <= most:
        limit = f"at least {least}" if number < least else f"at most {most}"
        raise ConfigError(f"{name} must be {limit}, got {quoted(value)}")


def check_finite(values: Tensor, what: str) -> None:
    """Check that a model's output is made of numbers.

    Args:
        values: features or scores, any shape.
        what: what they are, plural, for the message.

    Raises:
        NotFiniteError: a value is NaN or infinite.
    """
    if not bool(values.isfinite().all()):
        raise NotFiniteError(
            f"{what} are not finite numbers: the weights or inputs hold NaN or infinity, or overflow in "
            "reduced precision; load the model with dtype float32, or other weights"
        )
