"""What the documentation site needs beyond MkDocs' plugins (`make docs`).

- Documents link to one another as GitHub shows them, also to files outside docs/. Such a file joins the site at its
  path from the root of the repository: a document as a page, anything else as a file.
- A notebook is run, and becomes a page with what it printed.
- A page with the help texts of all commands.
- Equations as MathML.
- A page that would fetch something from another host ends the build.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from posixpath import dirname, relpath
from typing import Any

import nbformat
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient

from mote_fast.cli.parsers import build_parser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOK = ".ipynb"
COMMANDS = "reference/commands.md"
_FETCHED = re.compile(r"<(?:script|img|iframe|source|video|link)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that the navigation names or a page links to, and those that these link to."""
    todo = [Path(page.abs_src_path) for page in files.documentation_pages() if page.abs_src_path]
    todo += [ROOT / uri for uri in _named(config.nav) if (ROOT / uri).is_file()]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        if _uri(path) not in files.src_uris:
            files.append(_file(path, config))
        if path.suffix == ".md":
            links = _LINK.findall(path.read_text(encoding="utf-8"))
            todo += [target for link in links if (target := _target(path, link)) is not None]
    files.append(File.generated(config, COMMANDS, content="\n".join(_help_texts())))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between files of the site."""
    del config, files
    source, here = page.file.abs_src_path, dirname(page.file.src_uri)
    if source is None:
        return markdown

    def site_link(found: re.Match[str]) -> str:
        path = _target(Path(source), found[1])
        return found[0] if path is None else relpath(_uri(path), here or ".")

    return _LINK.sub(site_link, markdown)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that a browser without a network could not draw."""
    del config
    if (found := _FETCHED.search(output)) is not None:
        raise PluginError(f"{page.file.src_uri}: it fetches from another host: {found[0]}")
    return output


def equation(source: str, _language: str, css_class: str, *_: Any, **__: Any) -> str:
    """Write a formula as MathML, which browsers draw without a script, with its number beside it."""
    numbers = re.findall(r"\\tag\{(\d+)\}", source)
    number = f'<span class="number">({numbers[0]})</span>' if numbers else ""
    formula = convert(re.sub(r"\\tag\{\d+\}", "", source).strip(), display="block")
    return f'<div class="{escape(css_class)}" id="eq-{"-".join(numbers)}">{formula}{number}</div>'


def _named(nav: Any) -> list[str]:
    """The pages that a part of the navigation names."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [name for part in parts for name in _named(part)]


def _help_texts() -> Iterator[str]:
    """The page of the commands: what ``--help`` prints."""
    yield "# Commands\n\nWhat `mote-fast COMMAND --help` prints."
    todo = [build_parser()]
    while todo:
        parser = todo.pop(0)
        # A width of its own, because argparse takes that of the terminal.
        parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=100)
        yield f"\n## {parser.prog}\n\n```text\n{parser.format_help().rstrip()}\n```"
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                todo += dict.fromkeys(action.choices.values())


def _target(source: Path, link: str) -> Path | None:
    """The file that a link of the file ``source`` names; None if there is none, which MkDocs reports."""
    path = Path(os.path.normpath(source.parent / link))
    if path.is_dir():
        path /= "README.md"
    return path if path.is_file() and path.is_relative_to(ROOT) else None


def _file(path: Path, config: MkDocsConfig) -> File:
    """A file outside docs/ as one of the site."""
    if path.suffix == NOTEBOOK:
        return File.generated(config, _uri(path), content=run_notebook(path))
    return File.generated(config, _uri(path), abs_src_path=str(path))


def run_notebook(path: Path) -> str:
    """Run a notebook, and write it as a page: its texts, programs, and what these show.

    Raises:
        CellExecutionError: a program fails.
    """
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    # A kernel that listens on this machine alone warns that it is not encrypted.
    quiet = ["--IPKernelApp.log_level=ERROR"]
    NotebookClient(notebook, extra_arguments=quiet, startup_timeout=300, timeout=600, resources=where).execute()
    parts = []
    for cell in notebook.cells:
        parts.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                continue
            shown = output.get("data", {})
            if picture := shown.get("image/png"):
                parts.append(f"![](data:image/png;base64,{''.join(picture.split())})")
            elif text := output.get("text") or shown.get("text/plain"):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


def _uri(path: Path) -> str:
    """The place of a file in the site; README's is the start page."""
    if path == ROOT / "README.md":
        return "index.md"
    if path.suffix == NOTEBOOK:
        path = path.with_suffix(".md")
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()
