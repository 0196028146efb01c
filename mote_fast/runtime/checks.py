"""Checks of arguments that several configurable parts share."""

from __future__ import annotations

from typing import Any, get_args

from mote_fast.errors import ConfigError


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse a value that is none of a ``Literal`` type's.

    Args:
        name: of the argument, for the message.
        value: what was given.
        choices: the ``Literal`` type.

    Raises:
        ConfigError: the value is not among them.
    """
    known = get_args(choices)
    if value not in known:
        raise ConfigError(f"{name} must be {', '.join(map(repr, known[:-1]))} or {known[-1]!r}, got {value!r}")
