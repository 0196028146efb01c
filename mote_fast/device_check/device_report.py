"""report.json and report.md of a device check."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mote_fast.device_check.check import Check
from mote_fast.runtime.files import write_text
from mote_fast.runtime.json_text import to_json


@dataclass
class SectionResult:
    """One section's checks, with the seconds that it took."""

    number: int
    title: str
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0


def write_report(folder: Path, results: list[SectionResult]) -> None:
    """Write both files; called after each section, so that a run that is stopped leaves what it found."""
    write_text(folder / "report.json", to_json(describe(results), indent=1) + "\n")
    write_text(folder / "report.md", _markdown(results))


def failures(results: list[SectionResult]) -> list[Check]:
    """Return the checks that failed."""
    return [check for result in results for check in result.checks if check.verdict == "fail"]


def summary(results: list[SectionResult]) -> str:
    """Return how many checks ended how."""
    counts = Counter(check.verdict for result in results for check in result.checks)
    return (
        f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped, {counts['figure']} measurements"
    )


def describe(results: list[SectionResult]) -> dict[str, Any]:
    """Return the content of report.json."""
    return {
        "summary": summary(results),
        "sections": [
            {
                "number": result.number,
                "title": result.title,
                "seconds": round(result.seconds, 1),
                "checks": [{**vars(check), "figures": dict(check.figures)} for check in result.checks],
            }
            for result in results
        ],
    }


def _markdown(results: list[SectionResult]) -> str:
    lines = ["# Device check", "", f"{summary(results)}.", ""]
    for result in results:
        lines += [f"## {result.number}. {result.title} ({result.seconds:.0f} s)", ""]
        lines += ["| check | verdict | error | bound | figures | note |", "|---|---|---|---|---|---|"]
        lines += [_row(check) for check in result.checks]
        lines.append("")
    return "\n".join(lines)


def _row(check: Check) -> str:
    figures = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in check.figures.items())
    error = "" if check.error is None else f"{check.error:.2e}"
    bound = "" if check.bound is None else f"{check.bound:.0e}"
    cells = (check.name, check.verdict, error, bound, figures, check.note)
    return "| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in cells) + " |"
