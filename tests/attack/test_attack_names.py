"""Names of classes, files and data sets that are written to be obeyed: by terminals, Markdown viewers and plots."""

from __future__ import annotations

import logging
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.analysis.plots.canvas import new_figure, to_png
from mote_fast.cli import main, outputs
from mote_fast.runtime.text import markdown, visible
from tests.attack.conftest import Attack

HOSTILE = (
    "a | b",
    "<script>alert(1)</script>",
    "two\nlines",
    "# heading",
    "`code`",
    "![picture](file.png)",
    "[link](javascript:alert(1))",
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b2J",
    "\rover the line",
    "\u202egnp.exe",
    "&lt;b&gt;",
    "**bold** _slanted_ ~~struck~~",
    "- item",
    "1. item",
    "--- ",
    "=HYPERLINK(1)",
    "https://host/path www.host.org",
    "back\\slash \\| at the end\\",
    "\u2028separator\u0085next",
)
names = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30), st.text("|\\`*_<>[]()#-+1.! \n\x1b$&;~", max_size=30))


@given(st.one_of(names, st.text(st.characters(categories=("Cc", "Zl", "Zp", "Cs")), max_size=9)))
def test_visible_text_is_one_line_that_no_terminal_obeys(name: str) -> None:
    """No control character and no line break is left; other text is unchanged."""
    shown = visible(name)
    assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Zl", "Zp"}
    assert len((shown + ".").splitlines()) == 1
    assert visible(shown) == shown


@given(names, names)
def test_markdown_shows_the_text_and_nothing_else(first: str, second: str) -> None:
    """In a table, a heading and a list, a viewer finds one piece of text: no markup, no HTML, no further cell."""
    viewer = (
        pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    )
    first, second = "x" + first, second.strip() + "x"
    cells = viewer.parse(f"| {markdown(first)} | {markdown(second)} |\n| --- | --- |\n| 1 | {markdown(first)} |\n")
    assert [each.type for each in cells if each.type.endswith("_open")] == [
        *("table_open", "thead_open", "tr_open", "th_open", "th_open"),
        *("tbody_open", "tr_open", "td_open", "td_open"),
    ]
    inline = [each for each in cells if each.type == "inline"]
    assert [texts(each) for each in inline] == [visible(first).strip(), visible(second), "1", visible(first).strip()]
    for line, kind in ((f"# {markdown(second)}", "heading_open"), (f"- {markdown(second)}", "bullet_list_open")):
        parsed = viewer.parse(line)
        assert parsed[0].type == kind
        (only,) = [each for each in parsed if each.type == "inline"]
        assert texts(only) == visible(second)
        assert sum(each.type.endswith("list_open") for each in parsed) == (kind == "bullet_list_open")


def texts(inline: object) -> str:
    """The text of an inline token, all of whose parts must be text."""
    children = getattr(inline, "children", None) or []
    assert {each.type for each in children} <= {"text", "text_special"}
    return "".join(each.content for each in children)


def test_commands_print_no_control_characters(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, attack: Attack
) -> None:
    """Labels, file names and errors reach the terminal visibly, on one line each; JSON reads back unchanged."""
    for name in HOSTILE:
        with attack.attempt(name):
            video = tmp_path / (name.replace("/", " ") + ".mp4")
            video.write_bytes(b"not a video")
            labels = tmp_path / "labels.csv"
            labels.write_text('id,name\n0,"' + name.replace("\n", " ").replace('"', '""') + '"\n1,star\n')
            # A carriage return ends the line of the label file.
            for status, arguments in (
                (2 if "\r" in name else 3, ["classify", video, "--labels-file", labels, "--no-cache"]),
                (2, ["convert", video, tmp_path / name]),
            ):
                assert main([os.fspath(each) for each in arguments]) == status
            captured = capsys.readouterr()
            for line in (captured.out + captured.err).split("\n"):
                assert visible(line) == line


def test_log_lines_stay_lines() -> None:
    """A name with line breaks makes no second record, and a traceback keeps its lines."""
    formatter = outputs.LogFormatter("%(levelname)s: %(message)s")
    record = logging.LogRecord("mote_fast", logging.WARNING, "", 0, "%s", ("one\nERROR: two\x1b[2J",), None)
    assert formatter.format(record) == r"WARNING: one\nERROR: two\x1b[2J"
    record.exc_text = "Traceback:\n  line"
    assert formatter.format(record).endswith("\nTraceback:\n  line")


def test_names_in_plots_are_no_formulas() -> None:
    """A dollar sign is drawn: a formula that matplotlib cannot read would end the command."""
    figure = new_figure(2, 2)
    axes = figure.subplots()
    axes.set_title(r"$\frac{1$ costs 5$ _x_")
    axes.set_yticks([0, 1], labels=[r"$\frac$", "$_"])
    axes.plot([0, 1], [0, 1], label=r"$\sqrt{$")
    axes.legend()
    assert to_png(figure).startswith(b"\x89PNG")
