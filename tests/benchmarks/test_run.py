"""The runner: tables, files and plots of any benchmark, and the guard against a committed run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import harness
import pytest
from guard import violations
from performance_table import figures_of
from rows import read_json
from run import BENCHMARKS, main
from throughput import STAGES

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tests has not committed yet."""
    monkeypatch.setattr(harness, "commit", lambda: "abc")


@pytest.mark.slow
def test_the_whole_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One run end to end: the tables, the files, what follows from the parts, the table, the guard on itself."""
    files = [word for kind in ("json", "csv", "png") for word in (f"--{kind}", str(tmp_path / f"run.{kind}"))]
    files[files.index("--png")] = "--plot"
    assert main(["throughput", "--preset", "vit-test", "--quick", "--device", "cpu", *files]) == 0
    shown = capsys.readouterr().out
    assert "where a video's time goes" in shown
    assert "cold start, adding" in shown
    result = read_json(tmp_path / "run.json")
    assert {row.benchmark for row in result.rows} == {*STAGES}
    lines = dict(figures_of(result.rows, BENCHMARKS["throughput"].shown))
    assert {"cold start", "one video", "head, views: 1"} <= lines.keys()
    assert "|" not in "".join((*lines, *lines.values()))
    assert violations(result, result) == []
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "run.csv", "run.png", "run_waterfall.png"}


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["fold", "kernels", "scaling"])
def test_every_benchmark_is_run_alike(tmp_path: Path, name: str) -> None:
    """One command, one form of file, lines and a plot from its rows."""
    files = ["--json", str(tmp_path / "run.json"), "--plot", str(tmp_path / "run.png")]
    assert main([name, "--quick", "--device", "cpu", *files]) == 0
    rows = read_json(tmp_path / "run.json").rows
    assert {row.benchmark for row in rows} == {name}
    assert (tmp_path / "run.png").stat().st_size > 0


@pytest.mark.heavy
def test_check_fails_on_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 1 and the line names the arm, where the committed run was out of reach."""
    committed = tmp_path / "committed.json"
    command = ["throughput", "--preset", "vit-test", "--quick", "--stage", "head", "--device", "cpu"]
    assert main([*command, "--json", str(committed)]) == 0
    result = json.loads(committed.read_text())
    next(row for row in result["rows"] if (row["arm"], row["metric"]) == ("mote_fast", "ratio"))["median"] = 1e6
    committed.write_text(json.dumps(result))
    assert main([*command, "--check", str(committed)]) == 1
    assert "head, views 1, mote_fast:" in capsys.readouterr().err


def test_a_dirty_tree_is_told_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for figures that are thrown away."""
    monkeypatch.setattr(harness, "commit", lambda: "abc-dirty")
    with pytest.raises(SystemExit, match="commit first"):
        main(["throughput", "--json", str(tmp_path / "run.json")])


def test_an_unknown_stage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The message lists those that there are."""
    with pytest.raises(SystemExit):
        main(["kernels", "--stage", "clip"])
    assert "one of all, merge, experts, step" in capsys.readouterr().err


def test_make_bench_measures_every_benchmark() -> None:
    """A benchmark that is registered is committed."""
    names = re.search(r"^BENCHMARKS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert names is not None
    assert names[1].split() == list(BENCHMARKS)
