"""What each optimisation buys on the way from a file to scores: one after the other, and switched off alone.

Pure arithmetic on the times of the path's parts, so that a part that takes minutes needs to be measured once and not
in every combination.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stages.setting import COMPILED, INT8
from stages.tower import PLAIN_MLP, UNTRIMMED
from stages.workload import RELEASED

# Part of the path -> arm -> seconds.
Parts = Mapping[str, Mapping[str, float]]

OURS = "mote_fast"
CACHED = "mote_fast, from the cache"


@dataclass(frozen=True)
class Optimisation:
    """One thing that can be switched.

    Attributes:
        name: what it is called in the table.
        part: the part of the path that it changes.
        on: that part's arm once it is added, in the order of ``CHAIN``.
        off: that part's arm with everything of the default path on but this.
        extra: chosen by an argument, and so no part of the default path.
    """

    name: str
    part: str
    on: str
    off: str
    extra: bool = False


CHAIN = (
    Optimisation("short context", "text", "short context", "shared prefixes, padded"),
    Optimisation("shared prefixes", "text", OURS, "short context"),
    Optimisation("cache of class features", "text", CACHED, OURS),
    Optimisation("decoder", "decode", OURS, RELEASED),
    Optimisation("tensor transforms", "transform", OURS, RELEASED),
    Optimisation("trimmed last block", "clip", PLAIN_MLP, UNTRIMMED),
    Optimisation("fused MLP", "clip", OURS, PLAIN_MLP),
    Optimisation("once-through head", "head", "released, once through", "mote_fast, twice through"),
    # A folded head merges nothing.
    Optimisation("merge in one pass", "head", "mote_fast, unfolded", OURS),
    Optimisation("fold", "head", OURS, "mote_fast, unfolded"),
    Optimisation("compile", "clip", COMPILED, OURS, extra=True),
    Optimisation("int8", "clip", INT8, OURS, extra=True),
)

SCENARIOS = {
    "cold start": ("text", "decode", "transform", "clip", "head"),
    "warm start": ("text", "decode", "transform", "clip", "head"),
    "steady state": ("decode", "transform", "clip", "head"),
}


@dataclass(frozen=True)
class Step:
    """One line of a waterfall: seconds with this and everything above it on, and of the default path without it."""

    name: str
    seconds: float
    bought: float
    ratio: float
    off_alone: float | None


def waterfalls(parts: Parts) -> dict[str, list[dict[str, Any]]]:
    """The waterfall of every scenario, ready for JSON."""
    return {scenario: [asdict(step) for step in waterfall(scenario, parts)] for scenario in SCENARIOS}


def waterfall(scenario: str, parts: Parts) -> list[Step]:
    """Walk from the released recipe to the default path, and on to what arguments add.

    Args:
        scenario: a key of ``SCENARIOS``. A cold start has no cache; a warm one does.
        parts: seconds of every arm; optimisations whose arms were not measured are left out.

    Returns:
        The baseline first. ``bought`` is the ratio to the line above, ``ratio`` to the first; ``off_alone`` the
        seconds of the default path with this one off.
    """
    names = SCENARIOS[scenario]
    chosen = dict.fromkeys(names, RELEASED)
    final = dict.fromkeys(names, OURS) | ({"text": CACHED} if scenario == "warm start" else {})
    final = {part: arm for part, arm in final.items() if part in names}
    base = total(parts, chosen)
    steps = [Step("released recipe", base, 1.0, 1.0, None)]
    for each in applicable(scenario, parts):
        before = total(parts, chosen)
        chosen[each.part] = each.on
        after = total(parts, chosen)
        # With the cache on, the shortcuts of encoding have nothing left to do.
        idle = scenario == "warm start" and each.part == "text" and each.on != CACHED
        off = total(parts, final if idle else final | {each.part: each.off})
        steps.append(Step(each.name, after, before / after, base / after, off))
    return steps


def applicable(scenario: str, parts: Parts) -> Sequence[Optimisation]:
    """The optimisations that a scenario can have and whose arms were measured.

    Compiling and exporting to int8 cost more than one start gains, so they belong to the steady state.
    """
    names = SCENARIOS[scenario]
    return [
        each
        for each in CHAIN
        if each.part in names
        and {each.on, each.off} <= parts[each.part].keys()
        and (each.on != CACHED or scenario == "warm start")
        and (not each.extra or scenario == "steady state")
    ]


def total(parts: Parts, chosen: Mapping[str, str]) -> float:
    """Seconds of the path that takes the arms chosen, part by part."""
    return sum(parts[part][arm] for part, arm in chosen.items())


def shares(parts: Parts, chosen: Mapping[str, str]) -> dict[str, float]:
    """Each part's share of the path's time; they add up to 1."""
    whole = total(parts, chosen)
    return {part: parts[part][arm] / whole for part, arm in chosen.items()}
