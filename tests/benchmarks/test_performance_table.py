"""The table of figures: what the results files say, between its two comments and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import performance_table
import pytest
from harness import OFFICIAL, OURS
from marked_part import updated
from performance_table import BEGIN, END, PAGE, RESULTS, figure_of, figures_of, machine, table_of
from rows import Result, Row, write_json
from run import BENCHMARKS
from setting import INT8
from tower import TOWER, UNTRIMMED

ROWS = [
    Row("clip", TOWER, arm, metric, unit, figure, x=8)
    for arm, milliseconds in ((OFFICIAL, 2000.0), (UNTRIMMED, 1500.0), (OURS, 1000.0), (INT8, 500.0))
    for metric, unit, figure in (("time", "ms", milliseconds), ("ratio", "x", 2000.0 / milliseconds))
]
ROWS.append(Row("clip", TOWER, OURS, "cosine", "", 0.99999999, x=8))
ROWS.append(Row("clip", TOWER, INT8, "cosine", "", 0.9995, x=8))
ROWS.append(Row("end2end", "cold start", OURS, "time", "ms", 40.0))
ROWS.append(Row("end2end", "cold start, adding", "fold", "time", "ms", 9.0))


def test_figures_of_a_run() -> None:
    """A line a case and size; what is 1 by definition, and arms that take the path apart, are left out."""
    assert list(figures_of(ROWS, BENCHMARKS["throughput"].shown)) == [
        (f"{TOWER}: 8", "official 2 s; mote_fast 1 s, **2.00x**; mote_fast, int8 500 ms, **4.00x**, cosine 0.9995"),
        ("cold start", "mote_fast 40 ms"),
    ]


@pytest.mark.parametrize(
    ("metric", "unit", "figure", "text"),
    [
        ("time", "ms", 690123.0, "690 s"),
        ("memory", "MiB", 592.25, "592.2 MiB"),
        ("share", "", 0.7275, "share 0.7275"),
        ("gradients held", "MiB", 80.3, "gradients held 80.3 MiB"),
    ],
)
def test_a_figure_says_what_it_is(metric: str, unit: str, figure: float, text: str) -> None:
    """By its unit, or by its name."""
    assert figure_of(Row("", "", OURS, metric, unit, figure)) == text


def only_throughput(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(performance_table, "BENCHMARKS", dict.fromkeys(names, BENCHMARKS["throughput"]))


def test_the_table_names_machine_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: Result) -> None:
    """A figure without the two cannot be made again."""
    only_throughput(monkeypatch, "throughput")
    write_json(replace(result, rows=ROWS), tmp_path / "throughput.json")
    above, _, *lines = table_of(tmp_path).splitlines()
    assert above.startswith("Measured on A processor, torch 2.14.1; commits: abc. `python benchmarks/run.py NAME`")
    assert len(lines) == 4
    assert all(line.endswith("| `throughput`, threads: 2 |") for line in lines[2:])


def test_one_table_is_of_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: Result) -> None:
    """Figures of two machines side by side compare nothing."""
    only_throughput(monkeypatch, "one", "two")
    for name, processor in (("one", "A"), ("two", "B")):
        other = replace(result, rows=ROWS, environment=result.environment | {"processor": processor})
        write_json(other, tmp_path / f"{name}.json")
    with pytest.raises(SystemExit, match=r"one: A, torch 2\.14\.1; two: B, torch 2\.14\.1: run make bench on one"):
        table_of(tmp_path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """No line vanishes from the table in silence."""
    with pytest.raises(SystemExit, match=r"throughput\.json does not hold rows .*: measure it again"):
        table_of(tmp_path)


def test_machine_names_the_gpu(result: Result) -> None:
    """On a GPU the processor is not what was measured."""
    assert machine(result.environment | {"device": "cuda: NVIDIA H200"}) == "NVIDIA H200, torch 2.14.1"


def test_only_the_marked_part_changes() -> None:
    """Text around the comments is the authors'."""
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    new = updated(text, "new", BEGIN, END)
    assert new == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert updated(new, "new", BEGIN, END) == new


@pytest.mark.parametrize("text", ["", f"{BEGIN}", f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_comments_must_be_there(text: str) -> None:
    """A table cannot be put where no place is marked."""
    with pytest.raises(SystemExit, match="needs these two lines"):
        updated(text, "new", BEGIN, END)


def test_the_page_is_current() -> None:
    """The committed page says what the committed results say."""
    if '"presets"' not in (RESULTS / "throughput.json").read_text(encoding="utf-8"):
        pytest.skip("the committed results are of the form before rows: make bench, then make performance")
    text = PAGE.read_text(encoding="utf-8")
    assert updated(text, table_of(RESULTS), BEGIN, END) == text
