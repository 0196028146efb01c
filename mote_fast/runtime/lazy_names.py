"""Names of a package that are imported when first used, so that importing the package costs nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package's module (PEP 562).

    Type checkers do not follow them: the package also imports the names under ``TYPE_CHECKING``.

    Args:
        package: the package's ``__name__``.
        homes: module of this package, relative to it -> the names that it defines; no names for the module itself.
    """
    home_of = {name: f"{package}.{module}" for module, names in homes.items() for name in names}
    modules = {module for module, names in homes.items() if not names}

    def get(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(home_of[name]), name)
        # From now on an ordinary attribute.
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of, *modules})

    return get, names
