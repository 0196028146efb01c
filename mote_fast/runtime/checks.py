"""Argument checks shared by several modules."""

from __future__ import annotations

from typing import Any, get_args

from mote_fast.errors import ConfigError


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
        raise ConfigError(f"{name} must be {', '.join(map(repr, known[:-1]))} or {known[-1]!r}, got {value!r}")
