"""Sections run in processes of their own, and the report holds whatever they found before they ended."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from mote_fast.device_check.check import Check, attempt, bounded, error_of
from mote_fast.device_check.device_report import SectionResult, failures
from mote_fast.device_check.run_sections import Section, run_sections

COMMAND = (sys.executable, "-m", "mote_fast.device_check.section_process")
GOOD = """
from mote_fast.device_check.check import Check
def checks(setting):
    yield Check("first", "pass", 1e-7, 1e-5, figures={"copy GB/s": 2.0})
    yield Check("size", "figure", figures={"is": setting.size(10, 1), "peak": setting.figure("copy GB/s")})
"""
ABORTS = GOOD + "    import os; os.abort()\n"
HANGS = GOOD + "    import time; time.sleep(600)\n"


def run(folder: Path, modules: dict[str, str], monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[SectionResult]:
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", ":".join((str(folder), *sys.path)))
    sections = [Section(number, name, name, 20) for number, name in enumerate(modules)]
    return run_sections(
        sections, COMMAND, folder, device="cpu", dry=True, quick=False, seconds=seconds, show=lambda line: None
    )


@pytest.mark.heavy
def test_a_crash_ends_its_section_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a section found before it died is kept, its end is a failure, and the next section reads earlier figures."""
    first, second = run(tmp_path, {"aborts": ABORTS, "good": GOOD}, monkeypatch, 240)
    assert [check.verdict for check in first.checks] == ["pass", "figure", "fail"]
    assert "SIGABRT" in first.checks[-1].note
    assert second.checks[-1].figures == {"is": 1, "peak": 2.0}
    written = json.loads((tmp_path / "report.json").read_text())
    assert [len(section["checks"]) for section in written["sections"]] == [3, 2]
    assert "| first | pass | 1.00e-07 | 1e-05 |" in (tmp_path / "report.md").read_text()
    assert [check.name for check in failures([first, second])] == ["this section's process"]


@pytest.mark.heavy
def test_a_section_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what comes after the time has ended is skipped, not lost."""
    first, second = run(tmp_path, {"hangs": HANGS, "good": GOOD}, monkeypatch, 12)
    assert first.checks[-1].verdict == "fail"
    assert "stopped" in first.checks[-1].note
    assert [check.verdict for check in second.checks] == ["skip"]


def test_what_a_check_raises_is_its_failure() -> None:
    """The checks after it run."""

    def broken() -> Check:
        raise ValueError("no such\nkernel")

    (found,) = attempt("broken", broken)
    assert (found.verdict, found.note) == ("fail", "ValueError: no such kernel")


def test_one_wrong_row_among_many_is_seen() -> None:
    """A norm alone would let it pass; NaN, infinity and other shapes never pass."""
    truth = torch.randn(10_000, 8, generator=torch.Generator().manual_seed(0))
    wrong = truth.clone()
    wrong[77] = 0
    assert (wrong - truth).norm() / truth.norm() < 0.02
    assert error_of([wrong], [truth]) > 0.02
    assert error_of([truth.clone()], [truth]) == 0.0
    wrong[77] = math.nan
    assert error_of([wrong], [truth]) == error_of([truth[:5]], [truth]) == math.inf
    assert bounded("nan", math.nan, 1.0).verdict == "fail"
