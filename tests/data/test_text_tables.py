"""Text files of data: one set of rules for lines, CSV and JSON, and errors that name file and line."""

from __future__ import annotations

import codecs
import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data.flip_labels import read_flip_labels
from mote_fast.data.items import read_labels, read_list
from mote_fast.data.text_tables import read_json, read_lines, read_table, read_text, split_right, whole_number
from mote_fast.errors import ListError
from mote_fast.prepare.kinetics import read_k400
from mote_fast.prepare.ssv2 import read_ssv2
from mote_fast.prepare.ucf101 import read_ucf101

# Any character of a file name or class name, the line separators of Unicode among them.
CELLS = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=("Cs",)), max_size=9)


@given(
    rows=st.lists(st.tuples(CELLS, CELLS).filter(lambda row: any(cell.strip() for cell in row)), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.booleans(),
)
def test_what_a_spreadsheet_writes_is_read_back(
    rows: list[tuple[str, str]], end: str, mark: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any cells, line ends and byte order mark: the cells come back, each row with the line on which it is."""
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows([(" Name", "ID "), *rows])
    path = tmp_path_factory.mktemp("table") / "t.csv"
    path.write_bytes((codecs.BOM_UTF8 if mark else b"") + text.getvalue().encode())
    table = read_table(path, ("name",), ("id", "note"))
    assert table.header == [" Name", "ID "]
    assert [(row.named["name"], row.named["id"]) for row in table.rows] == rows
    assert [row.where for row in table.rows] == [f"{path}:{at}" for at in range(2, len(rows) + 2)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,name\n0,a, b\n", "t.csv:2: has more columns"),
        (b"id,name,\n0,a, b\n", "t.csv:2: has more columns"),
        (b"id,name\n0,a\n1\n", "t.csv:3: has 1 columns"),
        (b"id;name\n0;a\n", "separated by ';'"),
        (b"id\tname\n0\ta\n", r"separated by '\\t'"),
        (b"id,name,Name\n0,a,b\n", "two columns are named 'name'"),
        (b'id,name\n0,a\n1,"b\n2,c\n', "t.csv:3: not CSV"),
        (b'id,name\n0,"a\n1,b"\n', "t.csv:2: its name goes on"),
        (b'id,name\n0,"a" b\n', "t.csv:2: not CSV"),
        (b"id,name\n0," + b"a" * 200_000 + b"\n", "t.csv:2: not CSV"),
        (b"id,name\r0,a\r1,pi\xf1\r", "t.csv:3: the byte 0xF1 is not UTF-8; convert"),
        (b"id,name\r\n0,\xed\xb3\xa9\r\n", "t.csv:2: the byte 0xED"),
        (b"id,name\n0,a\0\n", "t.csv:2: holds a NUL"),
        ("id,name\n0,a\n".encode("utf-16"), "is UTF-16"),
        ("id,name\n0,a\n".encode("utf-32"), "is UTF-32"),
        ("id,name\n0,a\n".encode("utf-16-le"), "t.csv:1: holds a NUL"),
        (b"", "lacks the columns"),
    ],
)
def test_what_would_be_misread_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    """An unquoted comma, another separator or encoding, a quote that is not closed: the error says where."""
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ListError, match=message):
        read_table(tmp_path / "t.csv", ("name",), ("id",))


def test_every_reader_has_the_same_rules(tmp_path: Path) -> None:
    """Lists, class names, mirrored labels and annotations name the byte that is not UTF-8, and a missing file."""
    root = tmp_path / "videos"
    (root / "a").mkdir(parents=True)
    (root / "a" / "v.mp4").touch()
    for name in ("x.txt", "x.csv", "x.json", "labels.json", "train.json", "validation.json", "classInd.txt"):
        (tmp_path / name).write_bytes(b"\npi\xf1")
    for name, read in (
        ("x.txt", lambda: read_list(tmp_path / "x.txt")),
        ("x.csv", lambda: read_list(tmp_path / "x.csv")),
        ("x.txt", lambda: read_labels(tmp_path / "x.txt")),
        ("x.csv", lambda: read_labels(tmp_path / "x.csv")),
        ("x.csv", lambda: read_flip_labels(tmp_path / "x.csv")),
        ("x.json", lambda: read_flip_labels(tmp_path / "x.json")),
        ("x.csv", lambda: read_k400([tmp_path / "x.csv"], root)),
        ("labels.json", lambda: read_ssv2([tmp_path], root)),
        ("classInd.txt", lambda: read_ucf101([tmp_path], root)),
    ):
        with pytest.raises(ListError, match=f"{name}:2: the byte 0xF1"):
            read()
    # Nobody writes to the pipe: a reader that opens it waits for ever.
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "none.csv", tmp_path, tmp_path / "pipe.csv"):
        with pytest.raises(ListError, match=str(path)):
            read_text(path)


@given(
    lines=st.lists(CELLS.filter(lambda cell: cell.strip(" \t") != ""), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_lines_end_at_line_breaks_only(lines: list[str], end: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A vertical tab, a next-line character or a line separator inside a name splits nothing."""
    path = tmp_path_factory.mktemp("lines") / "l.txt"
    path.write_bytes(end.join(["", *lines, ""]).encode())
    assert list(read_lines(path)) == [(f"{path}:{at}", line.strip(" \t")) for at, line in enumerate(lines, 2)]


def test_columns_are_split_at_blanks_and_tabs() -> None:
    """Only the first column may contain them; other white space belongs to the name."""
    assert split_right(" a b\t12  3 ", 3) == ["a b", "12", "3"]
    assert split_right("a\u3000b\x85 3", 2) == ["a\u3000b\x85", "3"]
    assert split_right("a", 2) == ["a"]
    assert split_right("a b", 1) == ["a b"]


@pytest.mark.parametrize("value", ["１", "1_0", "1.0", "+1", "", " ", "x", "1 2", "9" * 19, 1.0, True, None, [1]])
def test_other_numbers_are_no_integers(value: object) -> None:
    """int() takes the digits of all scripts, underscores, and the halves of floats."""
    with pytest.raises(ListError, match="here: a label must be an integer"):
        whole_number(value, "here", "a label")


def test_integers() -> None:
    """Of JSON or in ASCII digits, with a bound if one is given."""
    assert [whole_number(value, "here", "n") for value in ("7", " 07\t", "-1", 7, "9" * 18)] == [
        7,
        7,
        -1,
        7,
        10**18 - 1,
    ]
    with pytest.raises(ListError, match="an integer from 0, found '-1'"):
        whole_number("-1", "here", "n", least=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n"a": }', "j.json:2: not JSON"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": NaN}', "JSON has no NaN"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_that_is_none(text: str, message: str, tmp_path: Path) -> None:
    """A key given twice would lose a class in silence."""
    (tmp_path / "j.json").write_text(text)
    with pytest.raises(ListError, match=message):
        read_json(tmp_path / "j.json")
