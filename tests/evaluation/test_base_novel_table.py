"""The table of seeds and data sets, and the results that it refuses."""

from __future__ import annotations

import copy
import statistics
from typing import Any

import pytest

from mote_fast.errors import ConfigError
from mote_fast.evaluation.base_novel_table import collect, table_lines


def result(base: float, novel: float, checkpoint: str, dataset: str = "ucf101") -> dict[str, Any]:
    def accuracy(value: float) -> dict[str, Any]:
        return {score: {of: {"top1": value} for of in ("readable", "all")} for score in ("running", "full-class")}

    splits = [
        {"name": name, "classes": classes, "videos": 9, **accuracy(value)}
        for name, classes, value in (("base_val", 51, base), ("novel_val", 50, novel))
    ]
    both = accuracy(statistics.harmonic_mean([base, novel]))
    facts = {"protocol": "base2novel", "dataset": dataset, "checkpoint": checkpoint, "views": "1x1"}
    return {**facts, "splits": splits, "mean": {}, "harmonic_mean": both}


def test_the_harmonic_mean_is_that_of_the_averages() -> None:
    """As in the tables of ViFi-CLIP: 92.9 and 67.7 give 78.3; data sets keep their order."""
    results = {"a": result(92.0, 66.7, "1"), "k": result(50.0, 0.0, "1", "k400"), "b": result(93.8, 68.7, "2")}
    rows = collect(results, "running", "readable")
    assert [(row.dataset, row.seeds) for row in rows] == [("ucf101", 2), ("k400", 1)]
    assert (rows[0].base.mean, rows[0].novel.mean) == pytest.approx((92.9, 67.7))
    assert rows[0].base.deviation == pytest.approx(0.9)
    assert rows[0].harmonic_mean == pytest.approx(78.3, abs=0.05)
    assert rows[1].harmonic_mean == 0
    lines = table_lines(rows)
    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[1].endswith("78.32")


def edits() -> dict[str, tuple[Any, str]]:
    def set_top1(value: Any) -> Any:
        return lambda document: document["splits"][1]["running"]["readable"].update(top1=value)

    return {
        "another number": (set_top1(99.0), "harmonic mean .* is not that of"),
        "text": (set_top1("67"), "top1 is '67', as mote-fast eval never writes"),
        "too large": (set_top1(670), "top1 is 670"),
        "true": (set_top1(True), "top1 is True"),
        "null": (set_top1(None), "no video could be read"),
        "no number": (lambda document: document["splits"][1].pop("running"), "splits.1.running is missing"),
        "one split": (lambda document: document["splits"].pop(), "splits.1 is missing"),
        "no splits": (lambda document: document.update(splits="x"), "splits.0.running is missing"),
        "no mean": (lambda document: document.pop("harmonic_mean"), "harmonic_mean is missing"),
        "a list for a name": (lambda document: document.update(dataset=["x"]), r"dataset is \['x'\]"),
        "another protocol": (lambda document: document.update(protocol=["zeroshot"]), "not of base2novel"),
    }


@pytest.mark.parametrize("name", edits())
def test_edited_results_are_refused(name: str) -> None:
    """One clear error that names the file and the value, whatever was changed."""
    edit, message = edits()[name]
    document = copy.deepcopy(result(93.0, 67.0, "1"))
    edit(document)
    with pytest.raises(ConfigError, match=f"^b.json: .*{message}"):
        collect({"a.json": result(93.0, 67.0, "2"), "b.json": document}, "running", "readable")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"checkpoint": "1"}, "one checkpoint"), ({"views": "4x3"}, "differ in views"), ({}, "other lists")],
)
def test_results_of_other_evaluations_are_refused(change: dict[str, Any], message: str) -> None:
    """Seeds of a data set differ in their checkpoint alone."""
    other = {**result(93.0, 67.0, "2"), **change}
    if not change:
        other["splits"][0]["classes"] = 26
    with pytest.raises(ConfigError, match=f"ucf101: a and b .*{message}"):
        collect({"a": result(93.0, 67.0, "1"), "b": other}, "running", "readable")
