"""What the committed reports of ``device_check.py`` say, in one line for each device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mote_fast.runtime.json_text import from_json

NOTHING = "No GPU has been measured yet: `python benchmarks/device_check.py --out FOLDER` measures one."
# What is quoted: the end of a check's name, its figure, and the words around it.
QUOTED = (
    ("copy bandwidth", "copy GB/s", "copies {:.0f} GB/s"),
    ("16-bit product", "product TFLOP/s", "16-bit products {:.0f} TFLOP/s"),
    ("pair forward and backward, factored: triton", "us", "{name} {:.1f} us"),
    ("pair forward and backward, factored: torch", "us", "{name} {:.1f} us"),
    ("step, captured", "us", "{name} {:.0f} us"),
    ("clips, eager", "clips/s", "{name} {:.0f} clips/s"),
    ("clips, compiled", "clips/s", "{name} {:.0f} clips/s"),
)


def device_lines(folder: Path) -> list[str]:
    """One item of a list for each report of the folder, ``<GPU>.json``; a sentence that there is none."""
    reports = sorted(folder.glob("*.json"))
    if not reports:
        return [NOTHING]
    return [f"- {_line(from_json(path.read_text(encoding='utf-8')), path.name)}" for path in reports]


def _line(report: Mapping[str, Any], file: str) -> str:
    checks = [check for section in report["sections"] for check in section["checks"]]
    known = {check["name"]: check["figures"] for check in checks}
    name, torch = known["device"]["name"], known["versions"]["torch"]
    figures = "; ".join(_figures(checks))
    return f"{name}, torch {torch}: {figures}; {report['summary']} (`benchmarks/results/device/{file}`)"


def _figures(checks: list[Mapping[str, Any]]) -> Iterator[str]:
    for end, figure, words in QUOTED:
        for check in checks:
            if check["name"].endswith(end) and figure in check["figures"]:
                yield words.format(check["figures"][figure], name=check["name"])
