"""Packages of the optional extras, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from mote_fast.errors import BackendError


def required(name: str, purpose: str, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        name: of the module.
        purpose: what needs it, for the message.
        extra: the extra that installs it.

    Raises:
        BackendError: it is not installed, or does not import.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise BackendError(f"{purpose} needs {package} ({error}); pip install 'mote_fast[{extra}]'") from error
