"""The documentation site's own rules: links out of docs/, equations, nothing from other hosts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed (make docs installs it)")
pytest.importorskip("latex2mathml", reason="latex2mathml is not installed (make docs installs it)")
pytest.importorskip("nbclient", reason="nbclient is not installed (make docs installs it)")

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from tools import site_hooks

ROOT = Path(__file__).parents[2]


def page(uri: str, path: Path) -> Any:
    """What the hooks read of MkDocs' page."""
    return SimpleNamespace(file=SimpleNamespace(src_uri=uri, abs_src_path=str(path)))


@pytest.mark.parametrize(
    ("uri", "path", "link", "expected"),
    [
        ("data.md", "docs/data.md", "decoding.md", "decoding.md"),
        ("training.md", "docs/training.md", "../configs/README.md#a", "configs/README.md#a"),
        ("training.md", "docs/training.md", "../configs/", "configs/README.md"),
        ("configs/README.md", "configs/README.md", "../docs/training.md", "../training.md"),
        ("CONTRIBUTING.md", "CONTRIBUTING.md", "README.md", "index.md"),
        ("data.md", "docs/data.md", "nowhere.md", "nowhere.md"),
        ("data.md", "docs/data.md", "https://arxiv.org", "https://arxiv.org"),
    ],
)
def test_links_lead_within_the_site(uri: str, path: str, link: str, expected: str) -> None:
    """What GitHub resolves in the repository, the site resolves among its own files."""
    rewritten = site_hooks.on_page_markdown(f"[x]({link})", page=page(uri, ROOT / path), config=None, files=None)
    assert rewritten == f"[x]({expected})"


def test_linked_files_join_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the navigation, those that a page links to, and those that these link to."""
    monkeypatch.setattr(site_hooks, "run_notebook", lambda path: path.name)
    config: Any = SimpleNamespace(nav=[{"Security": "SECURITY.md"}], site_dir=str(tmp_path), use_directory_urls=False)
    config.plugins = SimpleNamespace(_current_plugin="test")
    known = Files([File("training.md", str(ROOT / "docs"), str(tmp_path), False)])
    added = site_hooks.on_files(known, config=config).src_uris
    assert {"SECURITY.md", "configs/README.md", "configs/table1/mse.yaml", site_hooks.COMMANDS} <= added.keys()


def test_every_command_is_listed() -> None:
    """With its help text, sub-commands included."""
    text = "\n".join(site_hooks._help_texts())
    assert {"## mote-fast classify", "## mote-fast prepare folder", "## mote-fast eval"} <= set(text.splitlines())


def test_equations_are_drawn_without_a_script() -> None:
    """MathML, with the number as a place to link to."""
    drawn = site_hooks.equation(r"x = \frac{1}{2} \tag{7}", "math", "math")
    assert "<mfrac>" in drawn
    assert 'id="eq-7"' in drawn
    assert "tag" not in drawn


@pytest.mark.parametrize("element", ['<script src="https://a.b/c.js">', "<link rel=stylesheet href=//a.b/c.css>"])
def test_a_page_that_fetches_from_another_host_is_refused(element: str) -> None:
    """A link that a reader follows is none."""
    here = page("x.md", ROOT / "docs" / "data.md")
    assert site_hooks.on_post_page('<a href="https://a.b">', page=here, config=None)
    with pytest.raises(PluginError, match=r"x\.md"):
        site_hooks.on_post_page(element, page=here, config=None)
