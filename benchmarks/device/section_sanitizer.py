"""Section 7: the kernels under compute-sanitizer: accesses outside of memory, uninitialised reads, races."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mote_fast.device_check.check import Check, attempt, holds, skipped
from mote_fast.device_check.check_setting import CheckSetting

RUN = Path(__file__).with_name("sanitized_run.py")
TOOLS = {
    "memcheck": (),
    "initcheck": (),
    "racecheck": ("--kernel-name", "kernel_substring=linear_kernel"),
}


def checks(setting: CheckSetting) -> Iterator[Check]:
    """One run for each tool; each is many times slower than the kernels alone."""
    if not setting.on_gpu:
        done = subprocess.run([sys.executable, str(RUN), str(setting.device)], capture_output=True, text=True)
        yield holds("the program alone", done.returncode == 0, done.stderr[-300:])
    sanitizer = _sanitizer()
    for tool, options in TOOLS.items():
        if sanitizer is None:
            yield skipped(tool, "compute-sanitizer is not installed; it is part of the CUDA toolkit")
        elif not setting.on_gpu:
            yield skipped(tool, "needs a GPU")
        else:
            yield from attempt(tool, partial(_run, setting, sanitizer, tool, options))


def _sanitizer() -> str | None:
    """The program, also where the toolkit is installed but not on the path."""
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "compute-sanitizer"
    return shutil.which("compute-sanitizer") or (str(toolkit) if toolkit.is_file() else None)


def _run(setting: CheckSetting, sanitizer: str, tool: str, options: tuple[str, ...]) -> Check:
    if setting.left < 10:
        return skipped(tool, "no time is left")
    command = [sanitizer, "--tool", tool, *options, sys.executable, str(RUN), str(setting.device)]
    # PyTorch's cache would hide accesses beyond a tensor within a larger block.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=setting.left - 5)
    except subprocess.TimeoutExpired as stopped:
        return skipped(tool, f"stopped after {stopped.timeout:.0f} s")
    (setting.folder / "logs" / f"{tool}.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    # racecheck counts hazards; all three end with a summary.
    found = re.search(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (\d+)", done.stdout)
    if found is None:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        return skipped(tool, f"no summary; status {done.returncode}: {' '.join(last)[:200]}")
    note = f"{found[1]} reports; see logs/{tool}.txt"
    return holds(tool, found[1] == "0" and done.returncode == 0, "" if found[1] == "0" else note)
