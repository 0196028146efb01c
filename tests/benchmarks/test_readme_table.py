"""The README's table: what the results files say, between its two comments and nowhere else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import readme_table
from readme_table import BEGIN, END, README, RESULTS, SOURCES, Source, machine, table_of, updated

ENVIRONMENT: dict[str, Any] = {
    "device": "cpu: x86_64, 2 threads",
    "processor": "A processor",
    "threads": 2,
    "versions": {"torch": "2.14.1"},
    "commit": "abc",
}


def timed(workload: str, arm: str, median_ms: float, ratio: float | None, **more: Any) -> dict[str, Any]:
    return {
        "workload": workload,
        "arm": arm,
        "median_ms": median_ms,
        "ratio": ratio,
        "of_peak": None,
        "cosine": None,
    } | more


def throughput_result() -> dict[str, Any]:
    rows = []
    for workload in (
        "one video",
        "image tower, 8 frames",
        "image tower, 24 frames",
        "head, 1 view",
        "training step, 8 views",
    ):
        rows += [
            timed(workload, "released", 2000.0, 1.0),
            timed(workload, "mote_fast", 1000.0, 2.0, of_peak=0.9),
            timed(workload, "mote_fast, int8", 500.0, 4.0, of_peak=1.8, cosine=0.9995),
            timed(workload, "GEMM peak", 1.0, None),
        ]
    return {
        "environment": ENVIRONMENT,
        "setting": {"frames": 8, "views": "3x1"},
        "rows": rows,
        "starts": {"warm start": {"released": 300.0, "mote_fast": 2.0, "ratio": 150.0}},
        "break_even_videos": {"mote_fast, int8": 12.4, "mote_fast, compiled": None},
    }


def test_lines_of_throughput() -> None:
    """Figures are those of the rows; the peak of float32 is no measure of int8, whose cosine stands instead."""
    lines = dict(readme_table.throughput(throughput_result()))
    assert lines["warm start: from a loaded model to one video's scores, 400 labels"] == "300 s to 2 s: **150.0x**"
    tower = lines["image tower, 8 frames, against the released recipe's 2 s"]
    assert tower == "float32 **2.00x** (90% of the float32 peak); int8 **4.00x** (cosine 0.9995)"
    assert lines["head, one view, against the released recipe's 2 s"] == "float32 **2.00x**"
    assert lines["videos until int8 has won back its preparation"] == "12"
    assert lines["videos until compiled has won back its preparation"] == "never"


def test_lines_of_memory() -> None:
    """Each kind of work against its own baseline."""
    rows = [
        {"work": "inference", "arm": "released", "peak_mib": 800.0, "share": 1.0},
        {"work": "inference", "arm": "mote_fast", "peak_mib": 600.0, "share": 0.75},
    ]
    assert readme_table.memory({"rows": rows}) == [("peak memory, inference", "600 MiB against 800: 0.75 of it")]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.file)
def test_committed_results_can_be_read(source: Source) -> None:
    """Every committed file gives lines, whatever version of the benchmark wrote it."""
    path = RESULTS / source.file
    if not path.is_file():
        pytest.skip(f"{source.file} is not committed yet")
    lines = source.lines(json.loads(path.read_text()))
    assert lines
    assert all(line.what and line.figure and "|" not in line.what + line.figure for line in lines)


def test_every_line_has_its_command_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure without the two cannot be reproduced."""
    monkeypatch.setattr(readme_table, "SOURCES", SOURCES[:1])
    (tmp_path / "throughput.json").write_text(json.dumps(throughput_result()))
    lines = table_of(tmp_path).splitlines()[2:]
    assert len(lines) == 8
    assert all(
        line.endswith("| `python benchmarks/throughput.py` | A processor, 2 threads, torch 2.14.1, abc |")
        for line in lines
    )


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    """No line vanishes from the table in silence."""
    with pytest.raises(SystemExit, match=r"throughput\.json is missing: python benchmarks/throughput\.py --json"):
        table_of(tmp_path)


def test_machine_names_the_gpu() -> None:
    """On a GPU the processor is not what was measured."""
    on_gpu = ENVIRONMENT | {"device": "cuda: NVIDIA H200", "threads": 1}
    assert machine(on_gpu) == "NVIDIA H200, 1 thread, torch 2.14.1, abc"


def test_only_the_marked_part_changes() -> None:
    """Text around the comments is the authors'."""
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    new = updated(text, "new")
    assert new == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert updated(new, "new") == new


@pytest.mark.parametrize("text", ["", f"{BEGIN}", f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_comments_must_be_there(text: str) -> None:
    """A table cannot be put where no place is marked."""
    with pytest.raises(SystemExit, match="needs these two lines"):
        updated(text, "new")


def test_check_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--check tells by its status, before and after the table is written."""
    monkeypatch.setattr(readme_table, "SOURCES", SOURCES[:1])
    (tmp_path / "throughput.json").write_text(json.dumps(throughput_result()))
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    command = ["readme_table.py", "--results", str(tmp_path), "--readme", str(readme)]
    for extra, status in ((["--check"], 1), ([], 0), (["--check"], 0)):
        before = readme.read_text()
        monkeypatch.setattr(sys, "argv", command + extra)
        assert readme_table.main() == status
        assert (readme.read_text() == before) == (extra == ["--check"])


def test_readme_is_current() -> None:
    """The committed README says what the committed results say."""
    text = README.read_text(encoding="utf-8")
    assert updated(text, table_of(RESULTS)) == text
