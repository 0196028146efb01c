"""Rows: written as they were measured, from a clean commit only."""

from __future__ import annotations

import csv
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from harness import commit, summarise
from rows import Result, Row, read_json, table, value, write_csv, write_json

ROWS = [
    Row("clip", "tower, frames", "official", "time", "ms", 2.0, 1.5, 2.5, 3, x=8),
    Row("clip", "tower, frames", "mote_fast", "time", "ms", 1.0, 0.9, 1.25, 3, x=8),
    Row("clip", "tower, frames", "mote_fast", "cosine", "", 0.999875, x=8),
]


def test_a_result_comes_back(tmp_path: Path, result: Result) -> None:
    """What is read is what was measured."""
    written = replace(result, rows=ROWS)
    write_json(written, tmp_path / "new" / "result.json")
    assert read_json(tmp_path / "new" / "result.json") == written


def test_a_table_names_machine_and_commit(tmp_path: Path, result: Result) -> None:
    """One table has one schema, whatever the benchmark."""
    write_csv(replace(result, rows=ROWS), tmp_path / "result.csv")
    with (tmp_path / "result.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert list(first) == [*Row._fields, "machine", "commit"]
    assert (first["median"], first["machine"], first["commit"]) == ("2.0", "A processor", "abc")


@pytest.mark.parametrize("state", ["abc-dirty", "unknown"])
def test_nothing_is_written_from_a_dirty_tree(tmp_path: Path, result: Result, state: str) -> None:
    """Figures that no commit makes again are shown and not kept."""
    dirty = replace(result, environment=result.environment | {"commit": state})
    for write in (write_json, write_csv):
        with pytest.raises(SystemExit, match="commit first, or leave out --json"):
            write(dirty, tmp_path / "result")
    assert not list(tmp_path.iterdir())


@pytest.mark.heavy
def test_a_tree_is_dirty_where_code_differs(tmp_path: Path) -> None:
    """Results written a moment ago do not stand in the way of the next; code that nobody committed does."""
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "old.json").write_text("{}")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    (results / "old.json").write_text("[]")
    (results / "new.json").write_text("[]")
    clean = commit(tmp_path)
    assert len(clean) == 12
    (tmp_path / "new.py").write_text("")
    assert commit(tmp_path) == f"{clean}-dirty"


def test_a_file_of_another_form_is_told(tmp_path: Path) -> None:
    """An old file is measured again, not guessed at."""
    (tmp_path / "old.json").write_text('{"environment": {}, "rows": []}')
    with pytest.raises(SystemExit, match=r"old\.json does not hold rows of a benchmark .* measure it again"):
        read_json(tmp_path / "old.json")


def test_a_figure_is_found_by_what_it_is() -> None:
    """A figure that is not there is an error, not a zero."""
    assert value(ROWS, "tower, frames", "mote_fast", x=8) == 1.0
    with pytest.raises(KeyError, match="no row for tower, frames, mote_fast, time, 16"):
        value(ROWS, "tower, frames", "mote_fast", x=16)


def test_a_table_shows_every_figure() -> None:
    """A line an arm, a column a metric, gaps where an arm lacks one."""
    assert table(ROWS).splitlines() == [
        "tower, frames         time, ms  cosine",
        "official, 8     2 (1.5 to 2.5)        ",
        "mote_fast, 8   1 (0.9 to 1.25)  0.9999",
    ]


def test_percentiles() -> None:
    """One turn is its own percentiles."""
    assert summarise([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], scale=2.0) == pytest.approx((7.0, 4.0, 10.0))
    assert summarise([3.0]) == (3.0, 3.0, 3.0)
