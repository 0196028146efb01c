"""The regression guard: a run's ratios against committed ones, with bounds that a busy machine keeps."""

from __future__ import annotations

from harness import OURS
from rows import Result, Row

# A ratio may fall to this share of the committed one; memory, over the baseline arm's, may grow by this factor.
RATIO_BOUND, MEMORY_BOUND = 0.6, 1.5
# What makes two runs comparable.
SAME = ("presets", "frames", "experts", "quick", "dtype")


def violations(run: Result, committed: Result) -> list[str]:
    """Return one line for every arm of ours that is slower, larger or less exact than the committed run allows.

    Every arm of ours that the committed run has must be there, in the stages that were measured.
    """
    differing = [f"{key}={committed.setting[key]}" for key in SAME if run.setting[key] != committed.setting[key]]
    if differing:
        return [f"the committed run was made with {', '.join(differing)}: run with the same options"]
    found = {_key(row): row.median for row in run.rows}
    measured = {row.benchmark for row in run.rows}
    # The other arms take the path apart, and which decoders there are is the machine's affair.
    ours = [row for row in committed.rows if row.arm.startswith(OURS) and row.benchmark in measured]
    lines = []
    for row in ours:
        name, before, now = (
            f"{row.case}{'' if row.x is None else f' {row.x:g}'}, {row.arm}",
            row.median,
            found.get(_key(row)),
        )
        if now is None:
            lines += [f"{name}: not measured"] if row.metric == "ratio" else []
        elif row.metric == "ratio" and now < RATIO_BOUND * before:
            lines.append(f"{name}: {now:.2f}x, below {RATIO_BOUND} of the committed {before:.2f}x")
        elif row.metric == "memory share" and now > MEMORY_BOUND * before:
            lines.append(
                f"{name}: {now:.2f} of the baseline's memory, above {MEMORY_BOUND} times the committed {before:.2f}"
            )
        elif row.metric == "difference" and now > (allowed := found[_key(row._replace(metric="tolerance"))]):
            lines.append(f"{name}: differs from the baseline by {now:.1e}, more than {allowed}")
    return lines


def _key(row: Row) -> tuple[object, ...]:
    return row.benchmark, row.case, row.x, row.arm, row.metric
