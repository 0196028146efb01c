"""Argument checks shared by several modules."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from mote_fast.errors import ConfigError, NotFiniteError, quoted


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


def check_finite(values: Tensor, what: str) -> None:
    """Check that a model's output is made of numbers.

    Args:
        values: features or scores, any shape.
        what: what they are, plural, for the message.

    Raises:
        NotFiniteError: a value is NaN or infinite.
    """
    if not bool(torch.isfinite(values).all()):
        raise NotFiniteError(
            f"{what} are not finite numbers: the weights or inputs hold NaN or infinity, or overflow in "
            "reduced precision; load the model with dtype float32, or other weights"
        )
