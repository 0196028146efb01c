"""The written files: Parquet, CSV, Markdown and JSON agree with each other."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from mote_fast.data.items import VideoItem
from mote_fast.errors import ConfigError
from mote_fast.evaluation.evaluate import Evaluation, evaluate
from mote_fast.evaluation.prediction_table import check_parquet
from mote_fast.evaluation.report import result_document, write_report
from mote_fast.evaluation.splits import Split, pool_splits
from mote_fast.runtime.json_text import to_json
from tests.evaluation.made_up import MadeUpLoader, made_up_pixels, random_classes, small_model

FACTS = {"dataset": "made up", "checkpoint": None}
NAMES = ["run | walk", "jump", "sit", "stand", "fall", "rise"]


def made_up_evaluation(broken: set[int], protocol: str = "zeroshot") -> Evaluation:
    """Two overlapping splits of 6 videos, or one of all of them for the half-class protocol."""
    model, pixels = small_model(), made_up_pixels(6)
    items = [VideoItem(f"video{number}.mp4", number) for number in range(6)]
    splits = [Split("first", items[:4], NAMES), Split("second", items[2:], NAMES)]
    if protocol == "halfclass":
        splits = [Split("whole", items, NAMES)]
    pool = pool_splits(splits)
    loader = MadeUpLoader(pixels, broken=broken)
    return evaluate(model, loader, pool, splits, [random_classes(model, 6)], protocol)  # pyright: ignore


def test_predictions_as_parquet(tmp_path: Path) -> None:
    """A row for each listed video; scores that give the ranking; failed ones without, and with their reason."""
    evaluation = made_up_evaluation({3})
    write_report(tmp_path, evaluation, result_document(evaluation, FACTS))
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert [(row["split"], row["position"], row["path"]) for row in rows] == [
        *(("first", at, f"video{at}.mp4") for at in range(4)),
        *(("second", at, f"video{at + 2}.mp4") for at in range(4)),
    ]
    assert [row["path"] for row in rows if row["failed"]] == ["video3.mp4", "video3.mp4"]
    for row in rows:
        assert row["label_name"] == NAMES[row["label"]]
        for score in ("running", "full_class"):
            scores, best = row[f"{score}_scores"], row[f"{score}_top5"]
            if row["failed"]:
                assert (scores, best, row["reason"]) == (None, None, "made to fail")
            else:
                assert row["reason"] is None
                assert sum(scores) == pytest.approx(1)
                assert best == torch.tensor(scores).topk(5).indices.tolist()


def test_files_agree(tmp_path: Path) -> None:
    """JSON, Markdown and the CSV of classes have the same counts and accuracies."""
    evaluation = made_up_evaluation({3})
    document = result_document(evaluation, FACTS)
    write_report(tmp_path, evaluation, document)
    assert json.loads((tmp_path / "result.json").read_text()) == document
    first, second = document["splits"]
    assert [(each["videos"], each["failed"]) for each in (first, second)] == [(4, 1), (4, 1)]
    accuracies = [each["running"]["all"]["top5"] for each in (first, second)]
    spread = document["mean"]["running"]["all"]["top5"]
    assert spread["mean"] == pytest.approx(sum(accuracies) / 2)
    assert spread["deviation"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2)
    markdown = (tmp_path / "report.md").read_text()
    assert f"{spread['mean']:.2f} ± {spread['deviation']:.2f}" in markdown
    assert "video3.mp4: made to fail" in markdown
    assert "run \\| walk" in markdown
    with (tmp_path / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(NAMES)
    for split, entry in (("first", first), ("second", second)):
        mine = [row for row in rows if row["split"] == split]
        assert sum(int(row["videos"]) for row in mine) == entry["videos"]
        assert sum(int(row["failed"]) for row in mine) == entry["failed"]
        correct = sum(
            float(row["running_top1"]) / 100 * (int(row["videos"]) - int(row["failed"]))
            for row in mine
            if row["running_top1"]
        )
        assert correct / 3 * 100 == pytest.approx(entry["running"]["readable"]["top1"])


def test_half_class_document() -> None:
    """The list as a whole by both scores, the ten halves and their mean by the full-class one."""
    document = result_document(made_up_evaluation(set(), "halfclass"), FACTS)
    assert {"running", "full-class"} <= document["whole"].keys()
    assert len(document["splits"]) == 10
    assert all("running" not in split and split["classes"] == 3 for split in document["splits"])
    assert list(document["mean"]) == ["full-class"]


def test_nothing_readable_is_null() -> None:
    """Without a readable video the accuracy is null in JSON, and 0 if unreadable videos count as wrong."""
    document = result_document(made_up_evaluation(set(range(6))), FACTS)
    assert '"top1": null' in to_json(document)
    mean = document["mean"]["running"]
    assert mean["readable"]["top1"] == {"mean": None, "deviation": None}
    assert mean["all"]["top1"] == {"mean": 0.0, "deviation": 0.0}


def test_missing_pyarrow_is_told_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"mote_fast\[train\]"):
        check_parquet()
