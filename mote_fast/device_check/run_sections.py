"""Runs sections, each in a process of its own: an illegal access or a hang ends its section alone.

On a device, one at a time: times taken beside another section would be of both. A dry run claims no times, and is two
at a time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mote_fast.device_check.check import Check
from mote_fast.device_check.device_report import SectionResult, write_report
from mote_fast.runtime.json_text import from_json

# Between two looks at what the sections have found, seconds.
POLL = 0.2
DRY_AT_ONCE = 2
# Seconds that a section has beyond its budget, for Python's start and for the check that runs when the budget ends.
GRACE = 40.0


@dataclass(frozen=True)
class Section:
    """A section: a module with ``checks(setting)``.

    Attributes:
        number: its place in the report.
        title: what it checks.
        module: dotted name of the module.
        seconds: its budget.
        grows: whether it gets what earlier sections left of their time.
        interpreted: in a dry run, kernels run under Triton's interpreter, which a process enters at its start.
        measures: later sections read its figures, so they start when it has ended.
    """

    number: int
    title: str
    module: str
    seconds: float
    grows: bool = False
    interpreted: bool = False
    measures: bool = False


# The part of the whole that works from an installed package.
QUICK = (
    Section(0, "environment and peaks", "mote_fast.device_check.section_environment", 20, measures=True),
    Section(1, "compilation", "mote_fast.device_check.section_compiling", 70, interpreted=True),
    Section(2, "values", "mote_fast.device_check.section_values", 90, interpreted=True),
)


def run_sections(
    sections: Sequence[Section],
    command: Sequence[str],
    folder: Path,
    *,
    device: str,
    dry: bool,
    quick: bool,
    seconds: float,
    show: Callable[[str], None],
) -> list[SectionResult]:
    """Run the sections, start them in their order, and write the report after each.

    Args:
        sections: in the order in which they start; each has its own budget, or what is left of ``seconds``.
        command: the program that runs one section; ``section_process`` reads the arguments that are added.
        folder: where report.md, report.json and the sections' output go; made if needed.
        device: "cuda" or "cpu".
        dry: small sizes; on the CPU, kernels run under Triton's interpreter.
        quick: fewer cases.
        seconds: for all sections together.
        show: takes each line as soon as it is known and the sections before it have ended.

    Returns:
        One result per section, in the given order; the caller decides what a failure means.
    """
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + seconds
    program = [*command, "--device", device, "--folder", str(folder), *["--dry"] * dry, *["--quick"] * quick]
    at_once = DRY_AT_ONCE if dry else 1
    waiting = list(sections)
    running: list[_Running] = []
    results: list[SectionResult] = []
    shown = 0
    # Fresh caches, so that compile times are those of a first run.
    with tempfile.TemporaryDirectory(prefix="device_check_") as cache:
        try:
            while waiting or running:
                if waiting and len(running) < at_once and not any(each.measures for each in running):
                    section = waiting.pop(0)
                    later = sum(each.seconds for each in waiting)
                    looks = _looks(section, program, folder, Path(cache), dry, ends - time.monotonic(), later)
                    result = SectionResult(section.number, section.title)
                    results.append(result)
                    running.append(_Running(looks, result, section.measures, time.monotonic()))
                ended = [each for each in running if not each.look()]
                for each in ended:
                    running.remove(each)
                    write_report(folder, results)
                lines = _lines(results, [each.result for each in running])
                for line in lines[shown:]:
                    show(line)
                shown = len(lines)
                if running and not ended:
                    time.sleep(POLL)
        finally:
            for each in running:
                each.looks.close()
    return results


@dataclass
class _Running:
    """A section that has started: the looks at its process, and what they have found."""

    looks: Generator[list[Check]]
    result: SectionResult
    measures: bool
    start: float

    def look(self) -> bool:
        """Take what the section has found; return whether it goes on."""
        found = next(self.looks, None)
        self.result.checks += found or []
        self.result.seconds = time.monotonic() - self.start
        return found is not None


def _looks(
    section: Section, program: Sequence[str], folder: Path, cache: Path, dry: bool, left: float, later: float
) -> Generator[list[Check]]:
    """Return the looks at a section's process, which starts at the first of them; a skip where no time is left.

    Args:
        section: the section.
        program: the command with the arguments that all sections have.
        folder: of the report.
        cache: a folder for the run alone.
        dry: whether the run is.
        left: seconds for this section and those that have not started.
        later: budgets of those that have not started, seconds.
    """
    if left < 5:
        yield [Check(section.title, "skip", note="no time is left")]
        return
    budget = min(max(section.seconds, left - later) if section.grows else section.seconds, left)
    environment = _environment(cache, dry, section.interpreted)
    log = folder / "logs" / f"section_{section.number}.txt"
    # A dry run is of code, on a machine of any speed.
    limit = left if dry else min(budget + GRACE, left + 10)
    complete = [*program, "--seconds", f"{budget:.1f}", section.module]
    yield from _run(complete, environment, log, cache / f"found_{section.number}.jsonl", limit)


def _lines(results: Sequence[SectionResult], running: Sequence[SectionResult]) -> list[str]:
    """Return the lines of the sections up to the first that still runs."""
    lines = []
    for result in results:
        lines += [f"{result.number}. {result.title}", *(f"   {check.line()}" for check in result.checks)]
        if result in running:
            break
    return lines


def _environment(cache: Path, dry: bool, interpreted: bool) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    given |= {"TRITON_CACHE_DIR": str(cache / "triton"), "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")}
    if dry:
        # Its tensors are so small that threads of PyTorch would only wait for each other.
        given["OMP_NUM_THREADS"] = "1"
    return given | ({"TRITON_INTERPRET": "1"} if dry and interpreted else {})


def _run(
    command: Sequence[str], environment: Mapping[str, str], log: Path, found: Path, limit: float
) -> Generator[list[Check]]:
    """Run one process; each look yields the checks that it wrote since the last, and how it ended, if badly."""
    found.write_text("")
    with log.open("wb") as output, found.open(encoding="utf-8") as reader:
        process = subprocess.Popen(
            [*command, "--found", str(found)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=os.name == "posix",
        )
        ends = time.monotonic() + limit
        part = ""
        stopped = False
        try:
            while True:
                status = process.poll()
                # Read after the status, so that what a process wrote last is seen.
                *lines, part = (part + reader.read()).split("\n")
                yield [Check(**from_json(line)) for line in lines]
                if status is not None:
                    break
                if time.monotonic() > ends and not stopped:
                    stopped = True
                    _stop(process)
        finally:
            if process.poll() is None:
                _stop(process)
                process.wait()
    if stopped:
        yield [Check("this section's process", "fail", note=f"stopped after {limit:.0f} s; see {log.name}")]
    elif status:
        why = f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        yield [Check("this section's process", "fail", note=": ".join([why, *last])[:400])]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a section and the compilers that it started, which share its session."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
