"""One check: a name, an error, its bound and a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from mote_fast.errors import one_line

# What a bare machine has; without another package a check is left out.
_REQUIRED = ("mote_fast", "torch", "triton", "numpy", "device", "")

Verdict = Literal["pass", "fail", "skip", "figure"]


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: what was checked.
        verdict: "figure" is a measurement, which nothing bounds.
        error: what was found, where that is one number.
        bound: the largest error that passes.
        note: why it failed or was left out, or what else there is to say.
        figures: numbers by name, for reports and for later sections.
    """

    name: str
    verdict: Verdict
    error: float | None = None
    bound: float | None = None
    note: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return the check as one line."""
        parts = [f"{self.verdict:6} {self.name}"]
        if self.error is not None:
            parts.append(f"error {self.error:.2e}")
        if self.bound is not None:
            parts.append(f"bound {self.bound:.0e}")
        parts += [f"{name} {_short(value)}" for name, value in self.figures.items()]
        return "; ".join(part for part in (*parts, self.note) if part)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def bounded(name: str, error: float, bound: float, note: str = "") -> Check:
    """Return a check that passes if the error is at most the bound; NaN fails."""
    return Check(name, "pass" if error <= bound else "fail", error, bound, note)


def holds(name: str, fact: bool, note: str = "") -> Check:
    """Return a check of a fact."""
    return Check(name, "pass" if fact else "fail", note=note)


def skipped(name: str, why: str) -> Check:
    """Return a check that was left out."""
    return Check(name, "skip", note=why)


def error_of(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest error of the tensors: of the norm, relative, or of one element over the largest expected.

    A wrong row among many hardly changes a norm, hence both. Infinite if a shape differs or a value is not finite.
    """
    largest = 0.0
    for mine, truth in zip(found, expected, strict=True):
        if mine.shape != truth.shape:
            return math.inf
        if not mine.numel():
            continue
        difference, reference = mine.detach().double() - truth.detach().double(), truth.detach().double()
        norm = torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(reference).clamp_min(1e-300)
        worst = difference.abs().amax() / reference.abs().amax().clamp_min(1e-300)
        error = torch.maximum(norm, worst).item()
        largest = max(largest, error if math.isfinite(error) else math.inf)
    return largest


def attempt(name: str, run: Callable[[], Check | Iterable[Check]]) -> Iterator[Check]:
    """Run a check; what it raises is its failure, and the next check runs.

    Raises:
        ModuleNotFoundError: a module is missing that every machine has.
        RuntimeError: the device can compute nothing more in this process.
    """
    try:
        done = run()
        yield from [done] if isinstance(done, Check) else done
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        yield skipped(name, f"out of memory: {one_line(error, 120)}")
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in _REQUIRED:
            raise
        yield skipped(name, f"{package} is not installed")
    # Whatever the libraries below raise is the finding.
    except Exception as error:
        yield Check(name, "fail", note=f"{type(error).__name__}: {one_line(error, 400)}")
        # An illegal access leaves the device unusable for this process: this raises then, and the section ends.
        if torch.cuda.is_available():
            torch.cuda.synchronize()
