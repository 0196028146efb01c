"""Runs sections, each in a process of its own: an illegal access or a hang ends its section alone."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mote_fast.device_check.check import Check
from mote_fast.device_check.device_report import SectionResult, write_report
from mote_fast.runtime.json_text import from_json

# Between two looks at what a section has found, seconds.
POLL = 0.2
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
    """

    number: int
    title: str
    module: str
    seconds: float
    grows: bool = False
    interpreted: bool = False


# The part of the whole that works from an installed package.
QUICK = (
    Section(0, "environment and peaks", "mote_fast.device_check.section_environment", 20),
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
    """Run the sections one after another and write the report after each.

    Args:
        sections: in the order in which they run; each has its own budget, or what is left of ``seconds``.
        command: the program that runs one section; ``section_process`` reads the arguments that are added.
        folder: where report.md, report.json and the sections' output go; made if needed.
        device: "cuda" or "cpu".
        dry: small sizes; on the CPU, kernels run under Triton's interpreter.
        quick: fewer cases.
        seconds: for all sections together.
        show: takes each line as soon as it is known.

    Returns:
        One result per section; the caller decides what a failure means.
    """
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + seconds
    results: list[SectionResult] = []
    # Fresh caches, so that compile times are those of a first run.
    with tempfile.TemporaryDirectory(prefix="device_check_") as cache:
        for section in sections:
            result = SectionResult(section.number, section.title)
            results.append(result)
            show(f"{section.number}. {section.title}")
            start = time.monotonic()
            left = ends - start
            if left < 5:
                checks: Iterator[Check] = iter([Check(section.title, "skip", note="no time is left")])
            else:
                later = sum(each.seconds for each in sections[sections.index(section) + 1 :])
                budget = max(section.seconds, left - later) if section.grows else section.seconds
                arguments = [section.module, "--device", device, "--folder", str(folder)]
                arguments += ["--seconds", f"{min(budget, left):.1f}"]
                arguments += ["--dry"] * dry + ["--quick"] * quick
                environment = _environment(cache, dry and section.interpreted)
                log = folder / "logs" / f"section_{section.number}.txt"
                # A dry run is of code, on a machine of any speed.
                limit = left if dry else min(budget + GRACE, left + 10)
                checks = _run([*command, *arguments], environment, log, Path(cache) / "found.jsonl", limit)
            for check in checks:
                result.checks.append(check)
                show(f"   {check.line()}")
            result.seconds = time.monotonic() - start
            write_report(folder, results)
    return results


def _environment(cache: str, interpreted: bool) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    given |= {"TRITON_CACHE_DIR": f"{cache}/triton", "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor"}
    return given | ({"TRITON_INTERPRET": "1"} if interpreted else {})


def _run(
    command: Sequence[str], environment: Mapping[str, str], log: Path, found: Path, limit: float
) -> Iterator[Check]:
    """Run one process and yield its checks as it writes them; a last one says how it ended, if badly."""
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
                yield from (Check(**from_json(line)) for line in lines)
                if status is not None:
                    break
                if time.monotonic() > ends and not stopped:
                    stopped = True
                    _stop(process)
                time.sleep(POLL)
        finally:
            if process.poll() is None:
                _stop(process)
                process.wait()
    if stopped:
        yield Check("this section's process", "fail", note=f"stopped after {limit:.0f} s; see {log.name}")
    elif status:
        why = f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        yield Check("this section's process", "fail", note=": ".join([why, *last])[:400])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a section and the compilers that it started, which share its session."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
