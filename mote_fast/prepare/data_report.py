"""The report on the problems of a data set's videos, for scripts and for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from mote_fast.prepare.duplicates import Duplicates
from mote_fast.prepare.lists import DataSet
from mote_fast.prepare.scan import Scanned
from mote_fast.runtime.text import visible

# Kinds of problem, in the order of the report. Videos of the bad kinds can be left out of the lists.
BAD_KINDS = ("missing", "unreadable", "short", "unlistable")
KINDS = (*BAD_KINDS, "cut short")

# Entries per kind in the text report; the JSON report has all.
_SHOWN = 20


@dataclass(frozen=True)
class Problem:
    """One problem of a video: one of ``KINDS``, the path as in the lists, and the reason."""

    kind: str
    path: str
    reason: str


def build_report(
    data_set: DataSet,
    root: str,
    written: Mapping[str, int],
    problems: Sequence[Problem],
    scanned: Mapping[str, Scanned] | None,
    duplicates: Sequence[Duplicates],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the report as a JSON document.

    Args:
        data_set: the data set as annotated.
        root: root folder of the videos.
        written: name of each list that was written -> its number of videos.
        problems: problems of all videos.
        scanned: path -> result of the scan, or None without a scan.
        duplicates: groups of identical files.
        notes: sentences for the user, in addition to those of the data set.
    """
    lists_of: dict[str, list[str]] = {}
    labels_of: dict[str, set[tuple[str, int]]] = {}
    for each in data_set.lists:
        for item in each.items:
            lists_of.setdefault(item.path, []).append(each.name)
            labels_of.setdefault(item.path, set()).add((each.labels, item.label))
    counts = Counter(problem.kind for problem in problems)
    groups = [
        asdict(group)
        | {
            "lists": sorted({name for path in group.paths for name in lists_of[path]}),
            "several_classes": len({frozenset(labels_of[path]) for path in group.paths}) > 1,
        }
        for group in duplicates
    ]
    sound = [each for each in (scanned or {}).values() if not each.kind]
    return {
        "data_set": data_set.name,
        "root": root,
        "classes": {name: len(names) for name, names in data_set.labels.items()},
        "lists": {
            each.name: {"annotated": len(each.items), "written": written.get(each.name, 0)} for each in data_set.lists
        },
        "scanned": scanned is not None,
        "counts": {kind: counts[kind] for kind in KINDS} | {"duplicate groups": len(groups)},
        "problems": [
            asdict(problem) | {"lists": lists_of[problem.path]}
            for problem in sorted(problems, key=lambda problem: (KINDS.index(problem.kind), problem.path))
        ],
        "duplicates": groups,
        "videos": _describe(sound) if sound else None,
        "notes": [*data_set.notes, *notes],
    }


def format_report(report: Mapping[str, Any]) -> str:
    """Return the report as text for people; lists are cut after ``_SHOWN`` entries."""
    lines = [f"{report['data_set']}: videos under {report['root']}", ""]
    for name, count in report["lists"].items():
        left_out = count["annotated"] - count["written"]
        lines.append(f"{name}: {count['written']} videos" + (f", {left_out} left out" if left_out else ""))
    lines += [f"{name}: {count} classes" for name, count in report["classes"].items()]
    lines += [f"note: {note}" for note in report["notes"]]
    if not report["scanned"]:
        lines.append("note: Files were looked for but not opened; --scan opens them and compares their contents.")
    if report["videos"]:
        lines += ["", *(f"{name}: {_figures(value)}" for name, value in report["videos"].items())]
    for kind in KINDS:
        found = [f"{each['path']}: {each['reason']}" for each in report["problems"] if each["kind"] == kind]
        lines += _section(kind, found)
    groups = [
        " = ".join(group["paths"]) + (" (several classes)" if group["several_classes"] else "")
        for group in report["duplicates"]
    ]
    lines += _section("duplicate", groups)
    # Names may hold anything but a NUL byte and, in a part of a path, a slash.
    return "\n".join(map(visible, lines)) + "\n"


def _section(title: str, entries: Sequence[str]) -> list[str]:
    if not entries:
        return []
    rest = len(entries) - _SHOWN
    more = [f"  and {rest} more, see the JSON report"] if rest > 0 else []
    return ["", f"{title} ({len(entries)})", *(f"  {entry}" for entry in entries[:_SHOWN]), *more]


def _figures(value: Any) -> str:
    return ", ".join(f"{name} {figure}" for name, figure in value.items()) if isinstance(value, dict) else str(value)


def _describe(sound: Sequence[Scanned]) -> dict[str, Any]:
    """Statistics of the readable videos."""
    frames = [each.num_frames for each in sound]
    sides = [min(each.width, each.height) for each in sound]
    return {
        "sound": len(sound),
        "codecs": dict(Counter(each.codec for each in sound).most_common()),
        "frames": {"least": min(frames), "median": median(frames), "most": max(frames)},
        "short side": {"least": min(sides), "median": median(sides), "most": max(sides)},
    }
