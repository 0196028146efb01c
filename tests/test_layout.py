"""The library's folders: docs/architecture.md lists each, each has a docstring, and file names are unique."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "mote_fast"
PACKAGES = sorted(path.parent for path in LIBRARY.rglob("__init__.py"))
# Folders of the repository that the layout leaves out.
HIDDEN = {".ci", ".github", "typings"}


def layout() -> dict[str, str]:
    """The layout: folders by their path from the root, and the sentence beside each."""
    section = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Layout", 1)[1]
    found: dict[str, str] = {}
    parents: list[str] = []
    for indent, name, sentence in re.findall(r"^    ( *)([\w]+)/ +(\S.*)$", section, re.MULTILINE):
        parents = [*parents[: len(indent) // 2], name]
        found["/".join(parents)] = sentence
    return found


def tracked_folders() -> set[str]:
    """Folders that hold files of the repository, as deep as the layout goes."""
    top = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    generated = {"build", "demo", "runs", "dist", "__pycache__"} | {path.name for path in ROOT.glob("*.egg-info")}
    return top - generated - HIDDEN


def test_the_layout_shows_every_folder() -> None:
    """The layout lists every folder, and no folder that does not exist."""
    shown = set(layout())
    packages = {path.relative_to(ROOT).as_posix() for path in PACKAGES}
    data = {f"mote_fast/{name}" for name in ("presets",)}
    assert {name for name in shown if name.startswith("mote_fast")} == packages | data
    assert {name for name in shown if "/" not in name} == tracked_folders()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_package_says_what_it_holds(package: Path) -> None:
    """Its docstring's first line is one sentence."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))
    assert text
    assert re.fullmatch(r"\S[^\n]+[.:]", text.splitlines()[0])


def test_nothing_is_loose() -> None:
    """Only the public API, the errors and the version are outside the folders."""
    assert {path.name for path in LIBRARY.glob("*.py")} == {"__init__.py", "errors.py", "version.py"}


def test_no_two_files_share_a_name() -> None:
    """A file's name alone identifies it."""
    files = [*LIBRARY.rglob("*.py"), *(ROOT / "kernels").glob("*.py")]
    names = Counter(path.name for path in files if not path.name.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []


def test_kernels_know_nothing_above_them() -> None:
    """The import contract does not see kernels/, which is installed as mote_fast.kernels."""
    for path in (ROOT / "kernels").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mote_fast"):
                below = ("mote_fast.kernels", "mote_fast.errors")
                assert (node.module or "").startswith(below), f"{path.name}: {node.module}"
