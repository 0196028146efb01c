"""The result of an evaluation as one JSON document, as Markdown, and as a table of classes."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mote_fast.evaluation.accuracy import Ranked, count_classes, mean_and_deviation
from mote_fast.evaluation.average_precision import COSINE, Relevance
from mote_fast.evaluation.evaluate import Evaluation, SplitResult
from mote_fast.evaluation.prediction_table import prediction_parquet
from mote_fast.evaluation.protocol_names import ALL, FULL_CLASS, READABLE, RUNNING
from mote_fast.runtime.files import write_bytes
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.text import markdown, printable

RESULT_FILE = "result.json"
REPORT_FILE = "report.md"
CLASS_FILE = "per_class.csv"
PREDICTION_FILE = "predictions.parquet"
REPORT_FILES = (PREDICTION_FILE, CLASS_FILE, REPORT_FILE, RESULT_FILE)

SCORES = (RUNNING, FULL_CLASS, COSINE)

# Classes that the Markdown report lists; the CSV file has all of them.
_HARDEST = 10

_EXPLANATION = f"""\
- {RUNNING}: softmax of unscaled cosines per view, mean over views, softmax again (accumulated batch by batch).
- {FULL_CLASS}: softmax of 100 x cosine of the mean view feature (computed at the end from all features).
- {READABLE}: over the videos that could be read. {ALL}: over all listed ones, an unreadable one counted as wrong.
- The deviation is that of the population (divided by the number of splits)."""

_PRECISION = f"""\
- map: mean over classes of average precision, for videos with several labels; {ALL}: unreadable ones are never found.
- {COSINE}: of the mean view feature; the classes do not compete, as binary cross-entropy trains them."""


def result_document(evaluation: Evaluation, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result as a JSON document; accuracies are percentages, null if no video could be read.

    Args:
        evaluation: the result.
        facts: further values to record: ``dataset``, its name, and for example the checkpoint and the views.

    Returns:
        ``facts`` and: ``protocol``; ``splits``, which the protocol averages over (the lists, or the halves of the
        classes); ``mean``, over the splits; ``failures``; for the half-class protocol ``whole``, the list with all of
        its classes, for the mixed one ``alone``, each list with its own, and for base-to-novel ``harmonic_mean`` of the
        two lists. The key of an accuracy is
        [score][videos]["top1"], score "running" or "full-class", videos "readable" or "all".
        Where videos have several labels, "map" is in place of "top1" and "top5", and "cosine" is a third score.
    """
    splits = [_entry(each.name, each.classes, each.ranked) for each in evaluation.scores]
    failures = [{"path": each.path, "kind": each.kind, "reason": each.reason} for each in evaluation.failures]
    document = {**facts, "protocol": evaluation.protocol, "splits": splits, "mean": _mean(splits), "failures": failures}
    if evaluation.protocol == "halfclass":
        whole = evaluation.lists[0]
        document["whole"] = _entry(whole.split.name, len(whole.split.class_names), whole.ranked)
    if evaluation.protocol == "base2novel":
        document["harmonic_mean"] = _harmonic_mean(splits)
    if evaluation.protocol == "mixed":
        own = evaluation.lists[: len(splits)]
        document["alone"] = [_entry(each.split.name, len(each.split.class_names), each.ranked) for each in own]
    return document


def result_markdown(document: Mapping[str, Any], evaluation: Evaluation) -> str:
    """Return the document as Markdown: accuracies, their definitions, the hardest classes, the unreadable videos."""
    facts = {key: value for key, value in document.items() if not isinstance(value, (list, dict))}
    lines = [f"# {document['protocol']}: {markdown(str(document['dataset']))}", ""]
    lines += [f"- {key}: {markdown(str(value))}" for key, value in facts.items() if value is not None]
    lines += ["", *accuracy_lines(document), "", _EXPLANATION]
    lines += [*([_PRECISION] if COSINE in document["mean"] else []), ""]
    lines += ["## Hardest classes", "", *_hardest_lines(evaluation)]
    if document["failures"]:
        lines += ["", f"## Unreadable videos ({len(document['failures'])})", ""]
        lines += [f"- {markdown(each['path'])}: {markdown(each['reason'])}" for each in document["failures"]]
    return "\n".join(lines) + "\n"


def accuracy_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the accuracies of a document as the lines of a Markdown table."""
    tops = _measures(document["splits"][0])
    header = [
        "split",
        "classes",
        "videos",
        "failed",
        "score",
        *(f"{top}, {of}" for of in (READABLE, ALL) for top in tops),
    ]
    lines = [_row(header), _rule(len(header))]
    entries = [document["whole"]] if "whole" in document else document.get("alone", [])
    for entry in [*entries, *document["splits"]]:
        for score in _scores(entry):
            counts = [entry["name"], entry["classes"], entry["videos"], entry["failed"], score]
            lines.append(_row([*counts, *(_percent(entry[score][of][top]) for of in (READABLE, ALL) for top in tops)]))
    if len(document["splits"]) > 1:
        for score, mean in document["mean"].items():
            spreads = (mean[of][top] for of in (READABLE, ALL) for top in tops)
            cells = [f"{_percent(each['mean'])} ± {_percent(each['deviation'])}" for each in spreads]
            lines.append(_row([f"mean of {len(document['splits'])}", "", "", "", score, *cells]))
    for score, found in document.get("harmonic_mean", {}).items():
        cells = [_percent(found[of][top]) for of in (READABLE, ALL) for top in tops]
        lines.append(_row(["harmonic mean", "", "", "", score, *cells]))
    return lines


def class_csv(evaluation: Evaluation) -> str:
    """Return the accuracy, or average precision, of each class of each list, over its readable videos, as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    suffix = "ap" if evaluation.lists[0].split.several_labels else "top1"
    scores = [score.replace("-", "_") for score in evaluation.lists[0].ranked]
    writer.writerow(["split", "class", "name", "videos", "failed", *(f"{score}_{suffix}" for score in scores)])
    for result in evaluation.lists:
        columns = [_by_class(result, score) for score in result.ranked]
        for label, name in enumerate(result.split.class_names):
            videos, read, _ = columns[0][label]
            shares = ["" if share is None else f"{share:.4f}" for _, _, share in (column[label] for column in columns)]
            writer.writerow([result.split.name, label, name, videos, videos - read, *shares])
    return buffer.getvalue()


def write_report(folder: Path, evaluation: Evaluation, document: Mapping[str, Any]) -> None:
    """Write ``predictions.parquet``, ``per_class.csv``, ``report.md`` and, last, ``result.json`` into a folder.

    Raises:
        ConfigError: a file cannot be written, or pyarrow is not installed.
    """
    write_bytes(folder / PREDICTION_FILE, prediction_parquet(evaluation))
    write_bytes(folder / CLASS_FILE, printable(class_csv(evaluation)).encode())
    write_bytes(folder / REPORT_FILE, printable(result_markdown(document, evaluation)).encode())
    # Written last: result.json marks a complete report.
    write_bytes(folder / RESULT_FILE, (to_json(document, indent=2) + "\n").encode())


class _ClassShare(NamedTuple):
    """A class's listed and readable videos, and its accuracy or average precision, percent; None if it has none."""

    videos: int
    read: int
    share: float | None


def _by_class(result: SplitResult, score: str) -> list[_ClassShare]:
    ranked, classes = result.ranked[score], len(result.split.class_names)
    if isinstance(ranked, Relevance):
        counts = (ranked.positives.sum(0).tolist(), ranked.positives[ranked.read].sum(0).tolist())
        return [
            _ClassShare(videos, read, None if math.isnan(share) else share)
            for videos, read, share in zip(*counts, ranked.by_class.tolist(), strict=True)
        ]
    counted = zip(*(part.tolist() for part in count_classes(ranked, classes)), strict=True)
    return [_ClassShare(videos, read, 100 * correct / read if read else None) for videos, read, correct in counted]


def _entry(name: str, classes: int, ranked: Mapping[str, Ranked] | Mapping[str, Relevance]) -> dict[str, Any]:
    read = next(iter(ranked.values())).read
    scores = {
        score: {READABLE: _finite(each.percentages), ALL: _finite(each.percentages_of_all)}
        for score, each in ranked.items()
    }
    return {"name": name, "classes": classes, "videos": len(read), "failed": int((~read).sum()), **scores}


def _measures(entry: Mapping[str, Any]) -> list[str]:
    """Return the names of an entry's percentages: "top1" and "top5", or "map"."""
    return list(entry[_scores(entry)[0]][READABLE])


def _finite(percentages: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in percentages.items()}


def _mean(splits: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation of every accuracy over the splits; null if a split has none."""

    def spread(score: str, of: str, top: str) -> dict[str, float | None]:
        values = [split[score][of][top] for split in splits]
        if None in values:
            return {"mean": None, "deviation": None}
        return dict(mean_and_deviation(values)._asdict())

    return {
        score: {of: {top: spread(score, of, top) for top in _measures(splits[0])} for of in (READABLE, ALL)}
        for score in _scores(splits[0])
    }


def _harmonic_mean(splits: list[dict[str, Any]]) -> dict[str, Any]:
    """Harmonic mean of every accuracy over the splits; null if a split has none."""

    def combined(score: str, of: str, top: str) -> float | None:
        values = [split[score][of][top] for split in splits]
        return None if None in values else statistics.harmonic_mean(values)

    return {
        score: {of: {top: combined(score, of, top) for top in _measures(splits[0])} for of in (READABLE, ALL)}
        for score in _scores(splits[0])
    }


def _scores(entry: Mapping[str, Any]) -> list[str]:
    return [score for score in SCORES if score in entry]


def _hardest_lines(evaluation: Evaluation) -> list[str]:
    measure = "average precision" if evaluation.lists[0].split.several_labels else "top1"
    lines = [_row(["split", "class", "readable videos", f"{measure}, {RUNNING}"]), _rule(4)]
    for result in evaluation.lists:
        found = _by_class(result, RUNNING)
        shares = [(each.share, label) for label, each in enumerate(found) if each.share is not None]
        for share, label in sorted(shares)[:_HARDEST]:
            lines.append(_row([result.split.name, result.split.class_names[label], found[label].read, _percent(share)]))
    return lines


def _row(cells: list[Any]) -> str:
    return "| " + " | ".join(markdown(str(cell)) for cell in cells) + " |"


def _rule(columns: int) -> str:
    return "| " + " | ".join(["---"] * columns) + " |"


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
