"""The regression guard: a run's ratios against committed ones, with bounds that a busy machine keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# A ratio may fall to this share of the committed one.
RATIO_BOUND = 0.6
# An arm's memory, over the baseline arm's, may grow by this factor; below MEMORY_FROM MiB it is allocator noise.
MEMORY_BOUND = 1.5
MEMORY_FROM = 32.0
OURS = "mote_fast"
# What makes two runs comparable.
SAME = ("preset", "frames", "experts", "quick", "dtype")


def violations(report: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[str]:
    """Return one line for every arm of ours that is slower, larger or less exact than the committed run allows.

    Args:
        report: what a run wrote.
        baseline: what the committed run wrote. Its arms must all be there; arms that only the run has are new.
    """
    differing = [key for key in SAME if report["setting"][key] != baseline["setting"][key]]
    if differing:
        theirs = ", ".join(f"{key}={baseline['setting'][key]}" for key in differing)
        return [f"the committed run was made with {theirs}: run with the same options"]
    found = {_key(row): row for row in report["rows"]}
    memory, committed_memory = _relative_memory(report["rows"]), _relative_memory(baseline["rows"])
    measured = {row["stage"] for row in report["rows"]}
    lines = []
    for row in baseline["rows"]:
        key = _key(row)
        name = f"{row['workload']}, {row['arm']}"
        # The other arms take the path apart, and which decoders there are is the machine's affair.
        if not row["arm"].startswith(OURS) or row["stage"] not in measured:
            continue
        if key not in found:
            lines.append(f"{name}: not measured")
            continue
        now = found[key]
        if now["ratio"] < RATIO_BOUND * row["ratio"]:
            lines.append(f"{name}: {now['ratio']:.2f}x, below {RATIO_BOUND} of the committed {row['ratio']:.2f}x")
        if now["difference"] is not None and now["difference"] > now["tolerance"]:
            lines.append(f"{name}: differs from the baseline by {now['difference']:.1e}, more than {now['tolerance']}")
        if key in memory and key in committed_memory and memory[key] > MEMORY_BOUND * committed_memory[key]:
            lines.append(
                f"{name}: {memory[key]:.2f} of the baseline's memory, above {MEMORY_BOUND} times the committed "
                f"{committed_memory[key]:.2f}"
            )
    return lines


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["workload"], row["arm"]


def _relative_memory(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Memory of each arm over that of its workload's first, where that is large enough to mean something."""
    base: dict[str, float | None] = {}
    relative = {}
    for row in rows:
        reference = base.setdefault(row["workload"], row["peak_mib"])
        if row["peak_mib"] is not None and reference is not None and reference >= MEMORY_FROM:
            relative[_key(row)] = row["peak_mib"] / reference
    return relative
