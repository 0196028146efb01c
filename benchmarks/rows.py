"""A benchmark's figures: rows of one form, where they were measured, and how they are read, shown and written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mote_fast.runtime.files import write_text


class Row(NamedTuple):
    """One figure of one way (arm) to do one thing (case), ``x`` being its size where it has several.

    Where it was measured in turns it is their median, with percentiles. ``benchmark`` may be a stage of ``throughput``.
    """

    benchmark: str
    case: str
    arm: str
    metric: str
    unit: str
    median: float
    p20: float | None = None
    p80: float | None = None
    turns: int | None = None
    x: float | None = None


@dataclass(frozen=True)
class Result:
    """What one run of a benchmark found, where, and with which options."""

    environment: dict[str, Any]
    setting: dict[str, Any]
    rows: list[Row]


def value(rows: Iterable[Row], case: str, arm: str, metric: str = "time", x: float | None = None) -> float:
    """One figure of a run.

    Raises:
        KeyError: there is none.
    """
    for row in rows:
        if (row.case, row.arm, row.metric, row.x) == (case, arm, metric, x):
            return row.median
    raise KeyError(f"no row for {case}, {arm}, {metric}, {x}")


def table(rows: Sequence[Row]) -> str:
    """The rows of one case as text: a line an arm and size, a column a metric, percentiles beside medians."""
    cells: dict[tuple[str, float | None], dict[str, str]] = {}
    for row in rows:
        line = cells.setdefault((row.arm, row.x), {})
        name = f"{row.metric}, {row.unit}" if row.unit else row.metric
        line[name] = f"{row.median:.4g}"
        if row.p20 is not None and row.p80 is not None:
            line[name] += f" ({row.p20:.4g} to {row.p80:.4g})"
    columns = list(dict.fromkeys(name for line in cells.values() for name in line))
    lines = [[rows[0].case, *columns]]
    for (arm, x), line in cells.items():
        lines.append([arm if x is None else f"{arm}, {x:g}", *(line.get(name, "") for name in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    # Names to the left, figures to the right.
    return "\n".join(
        "  ".join((first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))))
        for first, *rest in lines
    )


def check_clean(environment: Mapping[str, Any]) -> None:
    """Refuse to write figures that no commit can make again.

    Raises:
        SystemExit: the environment's commit is dirty or unknown.
    """
    if environment["commit"] == "unknown" or environment["commit"].endswith("-dirty"):
        raise SystemExit(
            f"figures are written from a clean commit only, and this tree is {environment['commit']}: "
            "commit first, or leave out --json, --csv and --plot"
        )


def write_json(result: Result, path: Path) -> None:
    """Write a result, a line a row; refused from a dirty tree."""
    check_clean(result.environment)
    head = json.dumps({"environment": result.environment, "setting": result.setting}, indent=1)
    rows = ",\n".join("  " + json.dumps(_rounded(row)) for row in result.rows)
    write_text(path, head.removesuffix("\n}") + f',\n "rows": [\n{rows}\n ]\n}}\n')


def write_csv(result: Result, path: Path) -> None:
    """Write the rows with their machine and commit; refused from a dirty tree."""
    check_clean(result.environment)
    where = {"machine": result.environment["processor"], "commit": result.environment["commit"]}
    text = io.StringIO()
    writer = csv.DictWriter(text, [*Row._fields, *where], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rounded(row) | where for row in result.rows)
    write_text(path, text.getvalue())


def read_json(path: Path) -> Result:
    """Read what ``write_json`` wrote.

    Raises:
        SystemExit: the file is missing, or of another form.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Result(found["environment"], found["setting"], [Row(**row) for row in found["rows"]])
    except (OSError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} does not hold rows of a benchmark ({error}): measure it again") from error


def _rounded(row: Row) -> dict[str, Any]:
    # Six digits are more than any figure is good for.
    known = {key: each for key, each in row._asdict().items() if each is not None}
    return {key: float(f"{each:.6g}") if isinstance(each, float) else each for key, each in known.items()}
