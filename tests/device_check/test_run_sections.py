"""Sections run in processes of their own, and the report holds whatever they found before they ended."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mote_fast.device_check import run_sections as module
from mote_fast.device_check.check import Check, attempt, bounded, error_of
from mote_fast.device_check.device_report import SectionResult, failures
from mote_fast.device_check.run_sections import Section, run_sections

COMMAND = (sys.executable, "-m", "mote_fast.device_check.section_process")
GOOD = """
from mote_fast.device_check import run_sections as module
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
    sections = [Section(number, name, name, 20, measures=number == 0) for number, name in enumerate(modules)]
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


class Processes:
    """In place of sections' processes: each goes on for the given looks, during which the clock advances."""

    def __init__(self, looks: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks, self.now = looks, 0.0
        self.events: list[str] = []
        self.budgets: dict[int, float] = {}
        self.limits: dict[int, float] = {}
        self.threads: set[str | None] = set()
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))
        monkeypatch.setattr(module, "_run", self.run)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(
        self, command: Sequence[str], environment: dict[str, str], log: Path, found: Path, limit: float
    ) -> Iterator[list[Check]]:
        number = int(command[-1])
        self.budgets[number] = float(command[command.index("--seconds") + 1])
        self.limits[number] = limit
        self.threads.add(environment.get("OMP_NUM_THREADS"))
        self.events.append(f"start {number}")
        for look in range(self.looks[number]):
            yield [Check(f"{number}.{look}", "pass")]
        self.events.append(f"end {number}")

    def check(self, folder: Path, dry: bool, seconds: float = 100, **changed: Any) -> tuple[list[SectionResult], str]:
        """Run a section of 10 s for each; the last one grows. Returns the results, and what was shown."""
        last = len(self.looks) - 1
        sections = [Section(each, f"title {each}", str(each), 10, grows=each == last) for each in range(last + 1)]
        sections[0] = Section(0, "title 0", "0", 10, **changed)
        shown: list[str] = []
        device = "cpu" if dry else "cuda"
        results = run_sections(
            sections, ["program"], folder, device=device, dry=dry, quick=False, seconds=seconds, show=shown.append
        )
        return results, "|".join(line.split(";")[0].strip() for line in shown)


def test_a_device_runs_one_section_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside another section its times, its memory and its faults would be of both; PyTorch keeps its threads."""
    processes = Processes((3, 1, 2), monkeypatch)
    processes.check(tmp_path, dry=False)
    assert processes.events == ["start 0", "end 0", "start 1", "end 1", "start 2", "end 2"]
    assert processes.threads == {"7"}


def test_a_dry_run_has_two_sections_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread each; the report and what is shown have the sections' order, whichever ends first."""
    processes = Processes((4, 1, 1, 5), monkeypatch)
    results, shown = processes.check(tmp_path, dry=True)
    assert processes.events[:3] == ["start 0", "start 1", "end 1"]
    running = [sum(1 if each.startswith("start") else -1 for each in processes.events[:at]) for at in range(9)]
    assert max(running) == 2
    assert processes.threads == {"1"}
    assert [result.number for result in results] == [0, 1, 2, 3]
    assert [len(result.checks) for result in results] == [4, 1, 1, 5]
    written = json.loads((tmp_path / "report.json").read_text())
    assert [section["number"] for section in written["sections"]] == [0, 1, 2, 3]
    assert shown.startswith("0. title 0|pass   0.0|pass   0.1|pass   0.2|pass   0.3|1. title 1|pass   1.0|2. title 2")
    assert shown.endswith("|3. title 3|pass   3.0|pass   3.1|pass   3.2|pass   3.3|pass   3.4")


def test_a_section_whose_figures_others_read_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a later section found the figures would be chance otherwise."""
    processes = Processes((3, 1, 1), monkeypatch)
    processes.check(tmp_path, dry=True, measures=True)
    assert processes.events[:3] == ["start 0", "end 0", "start 1"]


@pytest.mark.parametrize("dry", [False, True])
def test_each_section_has_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: bool) -> None:
    """The one that grows gets what is left; on a device each is stopped soon after its budget, whatever others left."""
    processes = Processes((1, 1, 1), monkeypatch)
    processes.check(tmp_path, dry)
    assert processes.budgets[0] == processes.budgets[1] == 10
    assert processes.budgets[2] == pytest.approx(100, abs=2)
    assert processes.limits[0] == (100 if dry else 10 + module.GRACE)
    # No more than what is left, and nothing is started where that is next to nothing.
    late = Processes((20, 20, 1), monkeypatch)
    results, _ = late.check(tmp_path, dry, seconds=7)
    assert late.budgets[0] == 7
    assert results[2].checks[0].verdict == "skip"


def test_what_is_interrupted_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sections that run are stopped."""
    processes = Processes((9, 9, 1), monkeypatch)
    ended: list[str] = []

    def run(command: Sequence[str], *_: Any) -> Iterator[list[Check]]:
        try:
            while True:
                yield []
        finally:
            ended.append(command[-1])

    def interrupt(seconds: float) -> None:
        processes.now += seconds
        if processes.now > 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_run", run)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: processes.now, sleep=interrupt))
    # The traceback holds the frames: nothing is closed because it is garbage.
    with pytest.raises(KeyboardInterrupt) as interrupted:
        processes.check(tmp_path, dry=True)
    assert interrupted.tb is not None
    assert ended == ["0", "1"]


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
