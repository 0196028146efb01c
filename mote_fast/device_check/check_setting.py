"""What a section is given: the device, the size of the work, and the time that it may take."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from mote_fast.ops.implementations import triton_problem
from mote_fast.runtime.json_text import from_json

Value = TypeVar("Value")


@dataclass(frozen=True)
class CheckSetting:
    """The setting of one section.

    Attributes:
        device: where tensors live.
        dry: small sizes, kernels under Triton's interpreter, and no claim about speed.
        quick: the sizes of ``mote-fast doctor --gpu``.
        ends: ``time.monotonic()`` at which optional work stops.
        folder: of the report; earlier sections' results are in its report.json.
    """

    device: torch.device
    dry: bool
    quick: bool
    ends: float
    folder: Path

    def size(self, full: Value, dry: Value) -> Value:
        """Return the size for this setting."""
        return dry if self.dry else full

    @property
    def left(self) -> float:
        """Seconds until optional work stops."""
        return self.ends - time.monotonic()

    @property
    def on_gpu(self) -> bool:
        """Whether this is a CUDA device."""
        return self.device.type == "cuda"

    def memory(self) -> int:
        """Return the bytes that are free on the device; a small number of them where the run is dry."""
        return torch.cuda.mem_get_info(self.device)[0] if self.on_gpu else 2**30

    def why_no_kernels(self) -> str | None:
        """Return why Triton's kernels cannot run here, or None."""
        if self.on_gpu:
            return triton_problem(self.device)
        if not self.dry:
            return "no CUDA device"
        return None if importlib.util.find_spec("triton") else "Triton is not installed"

    def figure(self, name: str) -> float | None:
        """Return a figure of an earlier section, None where it was not measured."""
        report = self.folder / "report.json"
        if not report.is_file():
            return None
        document: dict[str, Any] = from_json(report.read_text(encoding="utf-8"))
        checks = (check for section in document["sections"] for check in section["checks"])
        return next((check["figures"][name] for check in checks if name in check["figures"]), None)
