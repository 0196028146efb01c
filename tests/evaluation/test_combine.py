"""The paper's own combined numbers, from its own accuracies."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mote_fast.errors import ConfigError
from mote_fast.evaluation.combine import combine, harmonic_mean, read_result, trade_off


def result(protocol: str, dataset: str, top1: float | None, checkpoint: str = "model") -> dict[str, Any]:
    mean = {of: {"top1": {"mean": top1, "deviation": 0.0}} for of in ("readable", "all")}
    return {"protocol": protocol, "dataset": dataset, "checkpoint": checkpoint, "mean": {"running": mean}}


# K400, then UCF, HMDB and K600; HM_ZS and trade-off (paper Table 4, eq. (22)).
@pytest.mark.parametrize(
    ("close_set", "zero_shot", "hm_zs", "score"),
    [
        (81.8, (83.4, 55.8, 70.2), 67.9, 74.2),
        (83.0, (83.4, 55.8, 70.2), 67.9, 74.7),
        (86.8, (88.7, 61.4, 78.4), 74.4, 80.1),
    ],
)
def test_table_4(close_set: float, zero_shot: tuple[float, ...], hm_zs: float, score: float) -> None:
    """HM_ZS and trade-off of B/16 at both numbers of views and of L/14, to the paper's rounding."""
    assert harmonic_mean(zero_shot) == pytest.approx(hm_zs, abs=0.06)
    assert trade_off(close_set, zero_shot) == pytest.approx(score, abs=0.06)
    documents = [
        result("zeroshot", name, value) for name, value in zip(("ucf", "hmdb", "k600"), zero_shot, strict=True)
    ]
    found = combine([*documents, result("closeset", "k400", close_set)])
    assert found.close_set == ("k400", close_set)
    assert found.hm_zs == harmonic_mean(zero_shot)
    assert found.score == trade_off(close_set, zero_shot)


def test_without_a_close_set_result() -> None:
    """There is HM_ZS but no trade-off score."""
    found = combine([result("zeroshot", "ucf", 50.0), result("zeroshot", "hmdb", 100.0)])
    assert found.hm_zs == pytest.approx(200 / 3)
    assert (found.close_set, found.score) == (None, None)
    assert combine([result("zeroshot", "ucf", 0.0)]).hm_zs == 0.0


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([result("closeset", "k400", 80.0)], "at least one zero-shot"),
        ([result("zeroshot", "ucf", 80.0), result("zeroshot", "ucf", 81.0)], "second zeroshot"),
        (
            [result("closeset", "a", 80.0), result("closeset", "b", 80.0), result("zeroshot", "u", 1.0)],
            "second closeset",
        ),
        ([result("halfclass", "ucf", 80.0)], "halfclass"),
        ([result("zeroshot", "ucf", None)], "no video"),
        ([result("zeroshot", "u", 1.0, "one"), result("zeroshot", "h", 1.0, "two")], "different checkpoints: one, two"),
    ],
)
def test_what_cannot_be_combined(documents: list[dict[str, Any]], message: str) -> None:
    """Results that are no trade-off of one model raise an error with the reason."""
    with pytest.raises(ConfigError, match=message):
        combine(documents)


def test_unknown_score() -> None:
    """A score that no result has is refused by name."""
    with pytest.raises(ConfigError, match="'best'"):
        combine([result("zeroshot", "ucf", 1.0)], score="best")


def test_read_result(tmp_path: Path) -> None:
    """From a file or its folder; anything else is refused by name."""
    document = result("zeroshot", "ucf", 80.0)
    (tmp_path / "result.json").write_text(json.dumps(document))
    assert read_result(tmp_path) == read_result(tmp_path / "result.json") == document
    for name, content in (("broken.json", "{"), ("other.json", "{}"), ("list.json", "[]")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match=name):
            read_result(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("none.json", "pipe.json"):
        with pytest.raises(ConfigError, match=name):
            read_result(tmp_path / name)
