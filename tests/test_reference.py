"""The API reference of the documentation site has every public name; it is read here without building the site."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import mote_fast
from mote_fast import batch, data, errors

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path: path.read_text(encoding="utf-8") for path in sorted((DOCS / "reference").glob("*.md"))}
DOCUMENTED = [name for text in PAGES.values() for name in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)]
# Their names have a page of their own.
MODULES = {"mote_fast.batch", "mote_fast.data", "mote_fast.errors"}


def found(name: str) -> Any:
    """The object of a dotted name."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_every_public_name_is_documented() -> None:
    """The names of ``mote_fast``, ``mote_fast.data`` and ``mote_fast.batch``, and every error."""
    public = {f"mote_fast.{name}" for name in mote_fast.__all__ if not name.startswith("__")} - MODULES
    public |= {f"mote_fast.data.{name}" for name in data.__all__}
    public |= {f"mote_fast.batch.{name}" for name in batch.__all__}
    public |= {
        f"mote_fast.errors.{name}"
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__ and not name.startswith("_")
    }
    assert public - set(DOCUMENTED) == set()
    assert "`mote_fast.__version__`" in "".join(PAGES.values())


def test_names_that_the_documents_import_are_documented() -> None:
    """What a program of a document takes from a sub-module is promised by it."""
    texts = [path.read_text(encoding="utf-8") for path in (*DOCS.rglob("*.md"), ROOT / "README.md")]
    imported = {
        f"{module}.{name}"
        for text in texts
        for module, names in re.findall(r"^from (mote_fast[\w.]*) import ([\w, ]+)$", text, re.MULTILINE)
        for name in names.split(", ")
    }
    assert imported
    assert imported - set(DOCUMENTED) - MODULES == set()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_names_of_the_reference_exist(name: str) -> None:
    """Each has a docstring, and no name stands twice."""
    assert DOCUMENTED.count(name) == 1
    assert inspect.getdoc(found(name))


def test_pages_of_the_reference_are_in_the_navigation() -> None:
    """A page that the navigation leaves out cannot be found."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in PAGES:
        assert f": {path.relative_to(DOCS).as_posix()}\n" in navigation
