"""How fast every stage is on this machine, against the official recipe, and where the time goes.

    python benchmarks/throughput.py                      # ViT-B/16, everything, about ten minutes on two cores
    python benchmarks/throughput.py --quick              # under 90 seconds
    python benchmarks/throughput.py --stage clip --preset vit-l-14 --batch 1 3

The same as ``python benchmarks/run.py throughput``, where the options are. What follows from the times of the path's
parts is arithmetic, so that a part that takes minutes is measured once and not in every combination.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from answer import answer
from class_features import CACHED, SHARED_PADDED, SHORT, text
from data import decode, transform
from end2end import VIDEO, end2end
from experts import train
from harness import OFFICIAL, OURS
from head import HEAD, ONCE, TWICE, UNFOLDED, head
from rows import Row, value
from setting import COMPILED, INT8, Setting
from tower import OWN_BLAS, PLAIN_MLP, TOWER, TRIMMED, UNTRIMMED, clip, clip_train

STAGES: Mapping[str, Callable[[Setting], Iterator[Row]]] = {
    "decode": decode,
    "transform": transform,
    "clip": clip,
    "clip-train": clip_train,
    "head": head,
    "text": text,
    "end2end": end2end,
    "answer": answer,
    "train": train,
}
# Part of the path -> arm -> milliseconds.
Parts = Mapping[str, Mapping[str, float]]

# Parts in the order of the path; class features come once, before the first video.
PARTS = ("text", "decode", "transform", "clip", "head")
BREAKDOWN, BREAK_EVEN = "where a video's time goes", "videos until its preparation is won back"


class Optimisation(NamedTuple):
    """One thing that can be switched, and the part of the path that it changes."""

    name: str
    part: str
    # That part's arm once it is added, in the order of ``CHAIN``, and with all of the default path on but this.
    on: str
    off: str
    # Chosen by an argument, and so no part of the default path.
    extra: bool = False


CHAIN = (
    Optimisation("short context", "text", SHORT, SHARED_PADDED),
    Optimisation("shared prefixes", "text", OURS, SHORT),
    Optimisation("cache of class features", "text", CACHED, OURS),
    Optimisation("decoder", "decode", OURS, OFFICIAL),
    Optimisation("tensor transforms", "transform", OURS, OFFICIAL),
    Optimisation("trimmed last block", "clip", TRIMMED, UNTRIMMED),
    Optimisation("faster float32 products", "clip", PLAIN_MLP, OWN_BLAS),
    Optimisation("fused MLP", "clip", OURS, PLAIN_MLP),
    Optimisation("once-through head", "head", ONCE, TWICE),
    # A folded head merges nothing.
    Optimisation("merge in one pass", "head", UNFOLDED, OURS),
    Optimisation("fold", "head", OURS, UNFOLDED),
    Optimisation("compile", "clip", COMPILED, OURS, extra=True),
    Optimisation("int8", "clip", INT8, OURS, extra=True),
)
COLD, WARM, STEADY = "cold start", "warm start", "steady state"
SCENARIOS = {COLD: PARTS, WARM: PARTS, STEADY: PARTS[1:]}


def throughput(setting: Setting) -> Iterator[Row]:
    """Measure the stages; "end2end" takes the parts of its path with it, for what follows from their times."""
    wanted = {*(setting.stages or STAGES)}
    if "end2end" in wanted:
        wanted |= {*PARTS}
    rows = []
    for name, stage in STAGES.items():
        for row in stage(setting) if name in wanted else ():
            rows.append(row)
            yield row
    if "end2end" in wanted and not setting.arms:
        yield from derived(rows, setting)


def derived(rows: Sequence[Row], setting: Setting) -> Iterator[Row]:
    """What follows from the stages of a run that measured the whole path."""
    sizes = {TOWER: setting.views.clips * setting.frames, HEAD: setting.views.clips}
    parts: dict[str, dict[str, float]] = {part: {} for part in PARTS}
    for row in rows:
        if row.benchmark in parts and row.metric == "time" and row.x == sizes.get(row.case):
            parts[row.benchmark][row.arm] = row.median
    yield from breakdown(parts, rows)
    for scenario in SCENARIOS:
        yield from waterfall(scenario, parts)
    yield from starts(parts, rows)
    yield from break_even(rows)


def waterfall(scenario: str, parts: Parts) -> Iterator[Row]:
    """Walk from the official recipe to the default path, and on to what arguments add.

    The time is that of the path with an optimisation and all before it on; what it bought is the ratio to the line
    above, "in all" that to the first line; "off alone" is the time of the default path with this one off.

    Args:
        scenario: a key of ``SCENARIOS``. A cold start has no cache; a warm one does.
        parts: times of every arm; optimisations whose arms were not measured are left out.
    """
    names = SCENARIOS[scenario]
    chosen = dict.fromkeys(names, OFFICIAL)
    final = dict.fromkeys(names, OURS) | ({"text": CACHED} if scenario == WARM else {})
    base = before = total(parts, chosen)
    yield Row("end2end", f"{scenario}, adding", "official recipe", "time", "ms", base)
    for each in applicable(scenario, parts):
        chosen[each.part] = each.on
        after = total(parts, chosen)
        # With the cache on, the shortcuts of encoding have nothing left to do.
        idle = scenario == WARM and each.part == "text" and each.on != CACHED
        row = partial(Row, "end2end", f"{scenario}, adding", each.name)
        yield row("time", "ms", after)
        yield row("bought", "x", before / after)
        yield row("in all", "x", base / after)
        yield row("off alone", "ms", total(parts, final if idle else final | {each.part: each.off}))
        before = after


def applicable(scenario: str, parts: Parts) -> list[Optimisation]:
    """The optimisations that a scenario can have and whose arms were measured.

    Compiling and exporting to int8 cost more than one start gains, so they belong to the steady state.
    """
    return [
        each
        for each in CHAIN
        if each.part in SCENARIOS[scenario]
        and {each.on, each.off} <= parts[each.part].keys()
        and (each.on != CACHED or scenario == WARM)
        and (not each.extra or scenario == STEADY)
    ]


def total(parts: Parts, chosen: Mapping[str, str]) -> float:
    """Time of the path that takes the arms chosen, part by part."""
    return sum(parts[part][arm] for part, arm in chosen.items())


def breakdown(parts: Parts, rows: Sequence[Row]) -> Iterator[Row]:
    """Every part's time and share in both arms, and their sum over what the whole took."""
    for arm in (OFFICIAL, OURS):
        summed = total(parts, dict.fromkeys(SCENARIOS[STEADY], arm))
        row = partial(Row, "end2end", BREAKDOWN, arm)
        for part in SCENARIOS[STEADY]:
            yield row(part, "ms", parts[part][arm])
            yield row(f"{part}, share", "", parts[part][arm] / summed)
        yield row("parts over whole", "", summed / value(rows, VIDEO, arm))


def starts(parts: Parts, rows: Sequence[Row]) -> Iterator[Row]:
    """From a loaded model to the first video's scores, its label set included."""
    base = parts["text"][OFFICIAL] + value(rows, VIDEO, OFFICIAL)
    for name, encoding in ((COLD, OURS), (WARM, CACHED)):
        for arm, time in ((OFFICIAL, base), (OURS, parts["text"][encoding] + value(rows, VIDEO, OURS))):
            yield Row("end2end", name, arm, "time", "ms", time)
            yield Row("end2end", name, arm, "ratio", "x", base / time)


def break_even(rows: Sequence[Row]) -> Iterator[Row]:
    """Videos after which an arm that prepares for long has won back what it cost; no row where it never does."""
    for row in rows:
        if row.case == VIDEO and row.metric == "preparation":
            won = value(rows, VIDEO, OURS) - value(rows, VIDEO, row.arm)
            if won > 0:
                yield Row("end2end", BREAK_EVEN, row.arm, "videos", "", row.median / won)


if __name__ == "__main__":
    # Imported here, for it imports this file under its own name.
    from run import main

    sys.exit(main(["throughput", *sys.argv[1:]]))
