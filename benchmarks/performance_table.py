"""The table of docs/performance.md, written from the committed results, so that neither can drift from the other.

python benchmarks/performance_table.py           # rewrite what stands between the two comments of the page
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from class_features import SHARED_PADDED
from harness import GEMM
from head import ONCE, TWICE
from marked_part import updated
from rows import Row, read_json
from run import BENCHMARKS
from tower import PLAIN_MLP, TRIMMED, UNTRIMMED

from mote_fast.runtime.files import write_text

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "performance.md"
BEGIN = "<!-- performance: begin (written by benchmarks/performance_table.py) -->"
END = "<!-- performance: end -->"
# Arms that take a path apart, of which the plot of waterfalls tells, and the yardstick.
LEFT_OUT = (SHARED_PADDED, ONCE, TWICE, PLAIN_MLP, TRIMMED, UNTRIMMED, GEMM)
# What a baseline is to itself, and what equal outputs are.
TRIVIAL = {"ratio": 1.0, "share": 1.0, "cosine": 1.0, "difference": 0.0}


def table_of(results: Path) -> str:
    """The table, from the files of a folder, and where they were measured.

    Raises:
        SystemExit: a file is missing, or another machine's.
    """
    lines = ["| what | figures | benchmark |", "|---|---|---|"]
    machines: dict[str, str] = {}
    commits = []
    for name, benchmark in BENCHMARKS.items():
        result = read_json(results / f"{name}.json")
        machines.setdefault(machine(result.environment), name)
        commits.append(result.environment["commit"])
        where = f"`{name}`, threads: {result.environment['threads']}"
        lines += [f"| {what} | {found} | {where} |" for what, found in figures_of(result.rows, benchmark.shown)]
    if len(machines) > 1:
        found = "; ".join(f"{name}: {each}" for each, name in machines.items())
        raise SystemExit(f"one table is of one machine, and these results are not: {found}: run make bench on one")
    where = f"{', '.join(machines)}; commits: {', '.join(dict.fromkeys(commits))}"
    return "\n".join(
        [
            f"Measured on {where}. `python benchmarks/run.py NAME` makes the figures of NAME in the last column.",
            "",
            *lines,
        ]
    )


def figures_of(rows: Sequence[Row], shown: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Every case and size that is shown, and the figures of its arms."""
    for case, x in dict.fromkeys((row.case, row.x) for row in rows):
        metrics = next((each for beginning, each in shown.items() if case.startswith(beginning)), ())
        arms: dict[str, list[str]] = {}
        for row in rows:
            wanted = (row.case, row.x) == (case, x) and row.metric in metrics and row.arm not in LEFT_OUT
            if wanted and float(f"{row.median:.5g}") != TRIVIAL.get(row.metric):
                arms.setdefault(row.arm, []).append(figure_of(row))
        if arms:
            what = case if x is None else f"{case}: {x:g}"
            yield what, "; ".join(f"{arm} {', '.join(figures)}" for arm, figures in arms.items())


def figure_of(row: Row) -> str:
    """A figure with its unit, or with its name where it has none that says enough."""
    if row.metric == "ratio":
        return f"**{row.median:.2f}x**"
    seconds = row.unit == "ms" and row.median >= 1000
    text = f"{row.median / 1000:.3g} s" if seconds else f"{row.median:.4g} {row.unit}".rstrip()
    return text if row.metric in ("time", "memory") else f"{row.metric} {text}"


def machine(environment: Mapping[str, Any]) -> str:
    """A machine in a few words: processor or GPU, and PyTorch."""
    device = environment["device"]
    part = device.removeprefix("cuda: ") if device.startswith("cuda") else environment["processor"]
    return f"{part}, torch {environment['versions']['torch']}"


if __name__ == "__main__":
    write_text(PAGE, updated(PAGE.read_text(encoding="utf-8"), table_of(RESULTS), BEGIN, END))
