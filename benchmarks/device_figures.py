"""What the committed reports of ``device_check.py`` say, written into the pages: the only source of figures of a GPU.

python benchmarks/device_figures.py           # rewrite what stands between the comments of the pages
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from device.predicted_times import COUNTED, STEPS  # noqa: E402
from marked_part import updated  # noqa: E402

from mote_fast.runtime.files import write_text  # noqa: E402
from mote_fast.runtime.json_text import from_json  # noqa: E402

REPORTS = ROOT / "benchmarks" / "results" / "device"
NOTHING = (
    "**No GPU has been measured yet**: no time, throughput or memory of one on any page is a measurement.\n"
    "`python benchmarks/device_check.py --out FOLDER` measures one."
)
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
# The parts of each page: reports in a line each, or predicted times beside measured ones.
PAGES = {
    "README.md": ("reports",),
    "docs/gpus.md": ("reports",),
    "docs/kernels.md": ("reports", "times"),
    "docs/performance.md": ("reports",),
}


class Report(NamedTuple):
    """A report of one GPU: its file, the GPU, and every check's figures by its name."""

    file: str
    gpu: str
    torch: str
    summary: str
    figures: Mapping[str, Mapping[str, Any]]


def read_reports(folder: Path) -> list[Report]:
    """Return the reports of a folder, ``<GPU>.json``.

    Raises:
        SystemExit: a file is of a dry run, or does not say what was measured.
    """
    return [_report(path) for path in sorted(folder.glob("*.json"))]


def _report(path: Path) -> Report:
    document = from_json(path.read_text(encoding="utf-8"))
    checks = [check for section in document["sections"] for check in section["checks"]]
    figures = {check["name"]: check["figures"] for check in checks}
    if "capability" not in figures.get("device", ()) or "torch" not in figures.get("versions", ()):
        raise SystemExit(f"{path.name}: is no report of a GPU: its section 0 names no device, or a processor")
    return Report(path.name, figures["device"]["name"], figures["versions"]["torch"], document["summary"], figures)


def reports_part(reports: Sequence[Report]) -> str:
    """One item of a list for each report; a sentence that there is none."""
    if not reports:
        return NOTHING
    items = [
        f"- {each.gpu}, torch {each.torch}: {'; '.join(_quoted(each))}; {each.summary} "
        f"(`benchmarks/results/device/{each.file}`)"
        for each in reports
    ]
    return "\n".join(["Measured by `python benchmarks/device_check.py`:", "", *items])


def _quoted(report: Report) -> Iterator[str]:
    for end, figure, words in QUOTED:
        for name, figures in report.figures.items():
            if name.endswith(end) and figure in figures:
                yield words.format(figures[figure], name=name)


def times_part(reports: Sequence[Report]) -> str:
    """A row for each predicted time, with a column for each GPU."""
    columns = ["predicted, H100", *(f"measured, {each.gpu}" for each in reports)]
    lines = [f"| {' | '.join(['what', *columns])} |", f"|{'---|' * (1 + len(columns))}"]
    for name, us in COUNTED.items():
        measured = [_figure(each, "B/16,", f", {name}: triton", "us") for each in reports]
        lines.append(_row(f"one layer, ViT-B/16, {name.removeprefix('pair: ')}", us, measured, "us"))
    for (architecture, clips), ms in STEPS.items():
        measured = [_figure(each, architecture, f", {clips} clips, eager", "ms") for each in reports]
        lines.append(_row(f"training step, {architecture}, {clips} clips, eager", ms, measured, "ms"))
    return "\n".join(lines)


def _figure(report: Report, begin: str, end: str, figure: str) -> float | None:
    found = (each for name, each in report.figures.items() if name.startswith(begin) and name.endswith(end))
    return next((each[figure] for each in found if figure in each), None)


def _row(what: str, predicted: float, measured: Sequence[float | None], unit: str) -> str:
    cells = ["" if each is None else f"{each:.3g} {unit}, {each / predicted:.2g} x" for each in measured]
    return f"| {' | '.join([what, f'{predicted:.3g} {unit}', *cells])} |"


def written(page: str, parts: Sequence[str], reports: Sequence[Report]) -> str:
    """The text of a page with its parts."""
    content = {"reports": reports_part, "times": times_part}
    for part in parts:
        begin, end = f"<!-- {part} of GPUs: begin (benchmarks/device_figures.py) -->", f"<!-- {part} of GPUs: end -->"
        page = updated(page, content[part](reports), begin, end)
    return page


def main(root: Path = ROOT, folder: Path = REPORTS) -> None:
    """Rewrite the parts of all pages."""
    reports = read_reports(folder)
    for name, parts in PAGES.items():
        page = root / name
        write_text(page, written(page.read_text(encoding="utf-8"), parts, reports))


if __name__ == "__main__":
    main()
