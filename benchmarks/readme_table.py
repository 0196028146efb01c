"""The README's table of figures, written from the committed results, so that neither can drift from the other.

python benchmarks/readme_table.py           # rewrite what stands between the two comments of README.md
python benchmarks/readme_table.py --check   # status 1 where it is not what the results say
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README = HERE.parent / "README.md"
BEGIN = "<!-- performance: begin (written by benchmarks/readme_table.py) -->"
END = "<!-- performance: end -->"

Result = Mapping[str, Any]


class Line(NamedTuple):
    """One line of the table: what was measured, and the figure."""

    what: str
    figure: str


class Source(NamedTuple):
    """A committed results file: the command that makes it, and its lines."""

    file: str
    command: str
    lines: Callable[[Result], list[Line]]


def throughput(result: Result) -> list[Line]:
    """Starts, one video, the image tower, the head, the training step."""
    lines = []
    for name, seconds in result["starts"].items():
        figure = f"{_seconds(seconds['released'])} to {_seconds(seconds['mote_fast'])}: **{seconds['ratio']:.1f}x**"
        lines.append(Line(f"{name}: from a loaded model to one video's scores, 400 labels", figure))
    lines += [_arms(result, "one video", f"one video, {result['setting']['views']} views, file to scores")]
    frames = result["setting"]["frames"]
    lines += [_arms(result, f"image tower, {n} frames", f"image tower, {n} frames") for n in (frames, 3 * frames)]
    for arm, videos in result["break_even_videos"].items():
        lines.append(
            Line(
                f"videos until {arm.split(', ')[-1]} has won back its preparation",
                "never" if videos is None else f"{videos:.0f}",
            )
        )
    if "int8_on_labels" in result:
        found = result["int8_on_labels"]
        lines.append(
            Line(
                f"int8 against float32, {found['rankings']} rankings of {found['labels']} labels, random weights",
                f"same best label in {found['same_top1']:.0%}; {found['top5_overlap']:.0%} of the top five shared; "
                f"features' cosine {found['lowest_cosine']:.4f} at the lowest",
            )
        )
    lines.append(_arms(result, "head, 1 view", "head, one view", only=("mote_fast",)))
    lines.append(_arms(result, "training step, 8 views", "training step of the head, batch 8"))
    return lines


def _arms(result: Result, workload: str, what: str, only: tuple[str, ...] | None = None) -> Line:
    rows = {row["arm"]: row for row in result["rows"] if row["workload"] == workload}
    figures = []
    for arm, row in rows.items():
        if row["ratio"] is None or not arm.startswith("mote_fast") or (only is not None and arm not in only):
            continue
        figure = f"{arm.removeprefix('mote_fast, ').removeprefix('mote_fast') or 'float32'} **{row['ratio']:.2f}x**"
        details = []
        if row["of_peak"] is not None and "int8" not in arm and workload.startswith("image tower"):
            details.append(f"{row['of_peak']:.0%} of the float32 peak")
        if "int8" in arm and row["cosine"] is not None:
            details.append(f"cosine {row['cosine']:.4f}")
        figures.append(figure + (f" ({', '.join(details)})" if details else ""))
    base = rows["released"]["median_ms"]
    return Line(f"{what}, against the released recipe's {_seconds(base / 1e3)}", "; ".join(figures))


def memory(result: Result) -> list[Line]:
    """Peaks of whole processes."""
    released = {row["work"]: row["peak_mib"] for row in result["rows"] if row["arm"] == "released"}
    return [
        Line(
            f"peak memory, {row['work']}",
            f"{row['peak_mib']:.0f} MiB against {released[row['work']]:.0f}: {row['share']:.2f} of it",
        )
        for row in result["rows"]
        if row["arm"] == "mote_fast"
    ]


def class_features(result: Result) -> list[Line]:
    """The label set's encoding against the padded one."""
    taken = result["seconds_compared"]
    ours, padded, short = (taken[arm] for arm in ("mote_fast", "padded to 77", "short, no shared prefix"))
    what = f"class features of {result['labels_compared']} labels, {result['model']}"
    return [
        Line(
            f"{what}, against encoding all 77 positions",
            f"{ours:.0f} s against {padded:.0f} s: **{result['speedup']:.1f}x**, "
            f"largest difference {result['worst_difference']:.0e}",
        ),
        Line("the same, without sharing template prefixes", f"{short:.0f} s: sharing buys {short / ours:.1f}x"),
    ]


def class_feature_cache(result: Result) -> list[Line]:
    """A later process."""
    warm = result["seconds_all_labels"]["second process, warm cache"]
    share = result["warm_share_of_cold"]
    return [Line("the same in a second process, from the cache", f"{warm:.2f} s, {share:.1%} of the first")]


def fold(result: Result) -> list[Line]:
    """Folding, batch 1."""
    figures = []
    for model in ("ViT-B-16", "ViT-L-14"):
        entry = result[f"{model}, batch 1"]
        times = [1e3 * entry["seconds"][arm]["median"] for arm in ("unfolded", "folded")]
        figures.append(f"{model} {times[0]:.1f} to {times[1]:.1f} ms: **{entry['speedup']:.1f}x**")
    return [Line("folded head against unfolded, batch 1, equal outputs", "; ".join(figures))]


def kernels(result: Result) -> list[Line]:
    """Training steps and merging."""
    ratios = {
        (row["workload"], row["preset"], row["batch"], row["arm"]): row["ratio_to_eager"] for row in result["rows"]
    }
    steps, merges = [], []
    for model in ("ViT-B-16", "ViT-L-14"):
        figures = (f"{ratios['step', model, batch, 'mote_fast']:.1f}" for batch in (2, 8, 64))
        steps.append(f"{model} **{' / '.join(figures)}x**")
        ours, copy = (ratios["merge", model, 0, arm] for arm in ("mote_fast", "copy"))
        merges.append(f"{model} **{ours:.1f}x**, {ours / copy:.0%} of a plain copy's bandwidth")
    return [
        Line("training step of the head with its optimiser, batch 2 / 8 / 64, against eager", "; ".join(steps)),
        Line("merging four experts against the eager loop", "; ".join(merges)),
    ]


def scaling(result: Result) -> list[Line]:
    """Flat in E, and what the rest of a step's growth is."""
    lines = []
    for arm, name in (("mote_fast", "ours"), ("eager", "eager")):
        rows = [row for row in result["rows"] if row["arm"] == arm]
        first, last = rows[0], rows[-1]
        times, held = (f"{first[key]:.0f} to {last[key]:.0f}" for key in ("backward_ms", "gradient_mib"))
        lines.append(f"{name} {times} ms and {held} MiB")
    first, last = result["rows"][0]["experts"], result["rows"][-1]["experts"]
    threads = result["environment"]["threads"]
    what = f"backward time and gradient memory from {first} to {last} experts, batch 8, threads: {threads}"
    table = [Line(what, "; ".join(lines))]
    for fit in result.get("fits", []):
        if fit["arm"] == "mote_fast":
            growth = f"{fit['of_explained']:.2f} of what moving its weights' bytes takes (r² {fit['r2']:.2f})"
            table.append(Line("growth of a training step with each expert", growth))
    return table


THROUGHPUT = "python benchmarks/throughput.py"
SOURCES = (
    Source("throughput.json", THROUGHPUT, throughput),
    Source("memory.json", "python benchmarks/memory.py", memory),
    Source("class_features.json", "python benchmarks/class_features.py", class_features),
    Source("class_feature_cache.json", "python benchmarks/class_features.py --compared 0", class_feature_cache),
    Source("fold.json", "python benchmarks/fold.py", fold),
    Source("kernels.json", "python benchmarks/kernels.py", kernels),
    Source("scaling.json", "python benchmarks/scaling.py --threads 1", scaling),
)


def table_of(results: Path) -> str:
    """The table, from the files of a folder.

    Raises:
        SystemExit: a file is missing; the message says which command makes it.
    """
    lines = ["| what | figure | command | machine |", "|---|---|---|---|"]
    for source in SOURCES:
        path = results / source.file
        if not path.is_file():
            raise SystemExit(f"{path} is missing: {source.command} --json {path}")
        result = json.loads(path.read_text(encoding="utf-8"))
        where = machine(result["environment"])
        lines += [f"| {what} | {figure} | `{source.command}` | {where} |" for what, figure in source.lines(result)]
    return "\n".join(lines)


def machine(environment: Result) -> str:
    """A machine in a few words: processor, threads, PyTorch, commit."""
    device = environment["device"]
    part = device.removeprefix("cuda: ") if device.startswith("cuda") else environment["processor"]
    version = environment["versions"]["torch"]
    threads = environment["threads"]
    return f"{part}, {threads} thread{'' if threads == 1 else 's'}, torch {version}, {environment['commit']}"


def updated(readme: str, table: str) -> str:
    """The README with ``table`` between its two comments.

    Raises:
        SystemExit: the comments are not there, once each and in order.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise SystemExit(f"README.md needs these two lines, once each and in this order: {BEGIN!r}, {END!r}")
    before, after = readme.split(BEGIN)[0], readme.split(END)[1]
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if the README is out of date")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--readme", type=Path, default=README)
    options = parser.parse_args()
    old = options.readme.read_text(encoding="utf-8")
    new = updated(old, table_of(options.results))
    if options.check:
        if new != old:
            print(f"{options.readme} is out of date: python benchmarks/readme_table.py", file=sys.stderr)
        return int(new != old)
    options.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
