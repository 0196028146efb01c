"""``mote-fast reproduce``: the paper's rows that need no training, from the released checkpoints and your data.

DATA has the lists in lists/NAME and the videos in videos/NAME, for k400, ucf101, hmdb51 and k600 as ``mote-fast prepare
NAME`` writes them. What is missing is named, and the rest is evaluated. An evaluation whose result is in the output
folder is not repeated. Under torchrun the processes divide the videos.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mote_fast.analysis.plots.draw_reproduction import draw_reproduction
from mote_fast.analysis.tables import to_csv
from mote_fast.cli import eval as evaluation
from mote_fast.cli import inputs, options, outputs
from mote_fast.cli.parsers.list_commands import add_eval_arguments
from mote_fast.cli.parsers.result_commands import RELEASED
from mote_fast.errors import CheckpointError, ConfigError
from mote_fast.evaluation.prediction_table import check_parquet
from mote_fast.evaluation.reproduction import (
    TEST_SETS,
    Compared,
    Run,
    compare,
    missing_files,
    record_of,
    rows_of,
    runs_of,
)
from mote_fast.model.zoo import list_models
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.runtime.files import make_folder, write_bytes
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.text import markdown

NAME = "reproduce"
RESULT_FILES = (f"{NAME}.json", f"{NAME}.md")

# Options of ``eval`` that are passed on to it.
_PASSED_ON = ("device", "dtype", "decode", "batch_size", "workers", "loader")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate what can be; the first process writes. Returns 0, 2 if a file was missing, 3 if a video was."""
    rows = rows_of(list(dict.fromkeys(arguments.tables)))
    missing: list[str] = []
    planned: dict[Run, argparse.Namespace] = {}
    for each in runs_of(rows):
        lacking = [*missing_files(each.data_set, Path(arguments.root)), *_missing_model(arguments, each.model)]
        missing += [line for line in lacking if line not in missing]
        if not lacking:
            planned[each] = _evaluation_of(arguments, each)
    check_parquet()
    with evaluation.processes(arguments) as world:
        if world.leads:
            outputs.prepare_drawing(arguments, NAME)
            make_folder(Path(arguments.output), names=RESULT_FILES)
        results = _results_of(planned, world)
        failures = sum(len(result["failures"]) for result in results.values())
        if world.leads:
            _write(arguments, compare(rows, results, arguments.score), results, missing)
            outputs.report(missing)
            outputs.report([f"{failures} videos could not be read"] if failures else [])
        # torchrun stops the others when one ends with another status than 0, so all wait until the first has written.
        world.wait()
    return outputs.FAILED if missing else outputs.SOME_FAILED if failures else 0


def _results_of(planned: Mapping[Run, argparse.Namespace], world: ProcessGroup) -> dict[Run, Mapping[str, Any]]:
    """Read the results of earlier evaluations, and make the others."""
    records = {each: _record_of(given) for each, given in planned.items()}
    # Nobody writes a result before all have looked.
    world.wait()
    results: dict[Run, Mapping[str, Any]] = {}
    for each, given in planned.items():
        found = records[each]
        results[each] = found if found is not None else evaluation.evaluate_lists(given, world)[1]
    return results


def _record_of(given: argparse.Namespace) -> dict[str, Any] | None:
    facts = {
        "protocol": given.protocol,
        "dataset": given.dataset,
        "checkpoint": given.checkpoint,
        "views": given.views,
        "dtype": given.dtype,
        "crops_along": given.crops_along,
        "without_modulation": given.no_modulation,
    }
    videos = {split.name: len(split.items) for split in evaluation.splits_of(given)}
    return record_of(Path(given.output), facts, videos)


def _missing_model(arguments: argparse.Namespace, name: str) -> list[str]:
    flag = RELEASED[name]
    given = getattr(arguments, flag)
    if given is not None and len(given) > 2:
        raise ConfigError(f"--{flag} takes a released file and its original CLIP, got {len(given)} values")
    if given is not None:
        return [f"--{flag} {path}: no such file" for path in given[:1] if not Path(path).is_file()]
    model = list_models()[name]
    try:
        found = model.path.is_file()
    except CheckpointError as error:
        return [str(error)]
    return [] if found else [f"{name}: not here; fetch it with `mote-fast download {name}` ({model.url}), or --{flag}"]


def _evaluation_of(arguments: argparse.Namespace, each: Run) -> argparse.Namespace:
    """The arguments of ``mote-fast eval`` that make one evaluation."""
    test_set, root = TEST_SETS[each.data_set], Path(arguments.root)
    lists = root / "lists" / test_set.name
    checkpoint, *clip = getattr(arguments, RELEASED[each.model]) or [each.model]
    words = ["--protocol", test_set.protocol, "--views", each.views, "--dataset", each.data_set]
    words += ["--list", *(str(lists / name) for name in test_set.lists)]
    words += ["--labels-file", *(str(lists / name) for name in test_set.labels)]
    words += ["--root", str(root / "videos" / test_set.name), "--checkpoint", checkpoint]
    words += ["--clip", clip[0]] if clip else []
    words += ["--output", str(Path(arguments.output, each.name))]
    for name in _PASSED_ON:
        if getattr(arguments, name) != options.BY_DEVICE:
            words += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    parser = options.CommandParser()
    add_eval_arguments(parser)
    parsed = parser.parse_args(words)
    # What the record of an earlier evaluation is compared with.
    inputs.settle_dtype(parsed)
    return parsed


def _write(
    arguments: argparse.Namespace,
    compared: Sequence[Compared],
    results: Mapping[Run, Mapping[str, Any]],
    missing: Sequence[str],
) -> None:
    """Write the table, the plot and the documents; print the figures."""
    header = ["table", "row", "data_set", "paper", "ours", "difference"]
    csv = to_csv(header, ([*each, each.difference] for each in compared))
    files = outputs.write_drawing(arguments, NAME, draw_reproduction(compared), csv)
    folder = Path(arguments.output)
    files += [str(folder / name) for name in RESULT_FILES]
    document = {
        "score": arguments.score,
        "figures": [{**each._asdict(), "difference": each.difference} for each in compared],
        "results": {each.name: str(folder / each.name) for each in results},
        "unread": {each.name: len(result["failures"]) for each, result in results.items()},
        "missing": list(missing),
        "files": files,
    }
    lines = [f"{'paper':>7}{'ours':>8}{'difference':>12}   top-1, %"]
    lines += [
        f"{each.paper:7.1f}{_two(each.ours):>8}{_signed(each.difference):>12}   "
        f"Table {each.table}: {each.row}, {each.data_set}"
        for each in compared
    ]
    write_bytes(folder / RESULT_FILES[1], _markdown(compared, missing, arguments.score).encode())
    write_bytes(folder / RESULT_FILES[0], (to_json(document, indent=2) + "\n").encode())
    outputs.show(arguments, document, [*lines, f"wrote {', '.join(files)}"])


def _markdown(compared: Sequence[Compared], missing: Sequence[str], score: str) -> str:
    lines = [
        "# The paper's figures, and ours",
        "",
        f"Top-1, percent; ours by the {score} score over readable videos.",
        "",
    ]
    lines += ["| table | row | data set | paper | ours | difference |", "|---|---|---|---|---|---|"]
    for each in compared:
        cells = [each.table, each.row, each.data_set, f"{each.paper:.1f}", _two(each.ours), _signed(each.difference)]
        lines.append("| " + " | ".join(map(markdown, cells)) + " |")
    if missing:
        lines += ["", "## Missing", "", *(f"- {markdown(line)}" for line in missing)]
    return "\n".join(lines) + "\n"


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
