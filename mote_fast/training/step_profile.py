"""A profile of some steps of a run: a trace of the host and the GPU, and a table of the operators that take most."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType

import torch
from torch import profiler

from mote_fast.errors import ConfigError

log = logging.getLogger(__name__)

PROFILE_FOLDER = "profile"
TRACE_FILE, TABLE_FILE = "trace.json", "operators.txt"

# Steps of a call before those that are recorded: they compile, allocate and fill queues.
SKIPPED = 5
ROWS = 40


class StepProfile:
    """Records steps with PyTorch's profiler.

    Args:
        output: the run's folder; ``profile/trace.json``, for Perfetto or chrome://tracing, and
            ``profile/operators.txt`` are written there when the last step to record is done, or the run ends.
        steps: how many, after the first ``SKIPPED`` of this call; 0 records nothing.
        device: device of the run; a GPU's work is recorded too.

    Raises:
        ConfigError: the files cannot be written.
    """

    def __init__(self, output: Path, steps: int, device: torch.device) -> None:
        self._folder = output / PROFILE_FOLDER
        self._on_gpu = device.type == "cuda"
        self._profile: profiler.profile | None = None
        if not steps:
            return
        kinds = [profiler.ProfilerActivity.CPU, *([profiler.ProfilerActivity.CUDA] if self._on_gpu else [])]
        # One step with the profiler on, unrecorded: its first call takes long.
        when = profiler.schedule(skip_first=SKIPPED - 1, wait=0, warmup=1, active=steps, repeat=1)
        self._profile = profiler.profile(activities=kinds, schedule=when, on_trace_ready=self._write)

    def __enter__(self) -> StepProfile:
        if self._profile is not None:
            self._profile.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._profile is not None:
            self._profile.stop()

    def step(self) -> None:
        """Say that a step is done."""
        if self._profile is not None:
            self._profile.step()

    def _write(self, done: profiler.profile) -> None:
        by = "self_device_time_total" if self._on_gpu else "self_cpu_time_total"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            done.export_chrome_trace(str(self._folder / TRACE_FILE))
            table = done.key_averages().table(sort_by=by, row_limit=ROWS)
            (self._folder / TABLE_FILE).write_text(table, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{self._folder}: cannot be written ({error})") from error
        log.info("profile of the steps: %s", self._folder / TABLE_FILE)
