"""Packages whose names are imported when first used."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

import mote_fast
import mote_fast.clip

PACKAGES = [mote_fast, mote_fast.data, mote_fast.clip]


def for_type_checkers(package: ModuleType) -> dict[str, str]:
    """The names that a package imports for type checkers alone, with the module that each comes from."""
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    blocks = (node for node in tree.body if isinstance(node, ast.If))
    (block,) = (node for node in blocks if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
    return {
        alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_type_checkers_see_the_same_names(package: ModuleType) -> None:
    """The names of both lists come from the same modules; every public one is there, and ``dir`` shows it."""
    listed = for_type_checkers(package)
    for name, module in listed.items():
        home = importlib.import_module(module)
        assert package.__getattr__(name) is getattr(home, name)
    assert {*listed} == {*package.__all__} - {"errors", "__version__"}
    assert {*package.__all__} <= {*dir(package)}


def test_unknown_names_are_errors_of_attributes_and_of_imports() -> None:
    """As in any module."""
    with pytest.raises(AttributeError, match="module 'mote_fast' has no attribute 'nosuch'"):
        _ = mote_fast.nosuch
    with pytest.raises(ImportError, match="nosuch"):
        from mote_fast import nosuch  # noqa: F401


def test_everything_can_be_imported_with_a_star() -> None:
    """``__all__`` has no name that does not come."""
    names: dict[str, object] = {}
    exec("from mote_fast import *", names)
    assert {*mote_fast.__all__} <= {*names}
