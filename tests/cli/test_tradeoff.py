"""``mote-fast tradeoff``: scores of one model and of several, the plot, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mote_fast.cli import main
from tests.cli.test_analyse import is_png, read_csv
from tests.cli.test_eval import Captured, run
from tests.evaluation.test_combine import result


def results_of(folder: Path, *documents: dict[str, Any]) -> list[str]:
    paths: list[str] = []
    for number, document in enumerate(documents):
        path = folder / f"{document['checkpoint']}_{number}.json"
        path.write_text(json.dumps(document))
        paths.append(str(path))
    return paths


@pytest.fixture
def ours(tmp_path: Path) -> list[str]:
    """The paper's L/14 numbers."""
    values = (("zeroshot", "ucf", 88.7), ("closeset", "k400", 86.8), ("zeroshot", "hmdb", 61.4))
    return results_of(tmp_path, *(result(*each, "mote") for each in (*values, ("zeroshot", "k600", 78.4))))


@pytest.fixture
def models(ours: list[str], tmp_path: Path) -> list[object]:
    """The paper's L/14 and a second model."""
    values = (("zeroshot", "ucf", 82.6), ("closeset", "k400", 86.7), ("zeroshot", "hmdb", 52.1))
    plain = results_of(tmp_path, *(result(*each, "plain") for each in (*values, ("zeroshot", "k600", 72.8))))
    return ["--model", "MoTE", 6, *ours, "--model", "plain", 6, *plain]


def test_one_model(capsys: Captured, ours: list[str]) -> None:
    """One model's results give both scores, as text and JSON, with options before or after the files."""
    status, out, _ = run(capsys, "tradeoff", "--score", "running", *ours, "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["hm_zs"], found["score"]) == pytest.approx((74.4, 80.1), abs=0.06)
    assert found["close_set"] == ["k400", 86.8]
    assert found["zero_shot"] == {"ucf": 88.7, "hmdb": 61.4, "k600": 78.4}
    status, out, _ = run(capsys, "tradeoff", *ours)
    assert (status, " 86.80  k400, close-set" in out, f"{found['score']:.2f}  trade-off" in out) == (0, True, True)


def test_several_models(capsys: Captured, models: list[object]) -> None:
    """Each model's numbers are printed; without a folder nothing is written."""
    status, out, _ = run(capsys, "tradeoff", *models, "--json")
    document = json.loads(out)
    mote, baseline = document["models"]
    assert (status, document["files"]) == (0, [])
    assert (mote["series"], mote["layers"], mote["close_set"]) == ("MoTE", 6, 86.8)
    assert (mote["hm_zs"], mote["score"]) == pytest.approx((74.4, 80.1), abs=0.06)
    assert baseline["hm_zs"] == pytest.approx(3 / (1 / 82.6 + 1 / 52.1 + 1 / 72.8))
    status, out, _ = run(capsys, "tradeoff", *models)
    assert (status, f"{mote['score']:.2f}" in out, "wrote" in out) == (0, True, False)


@pytest.mark.heavy
def test_plot(capsys: Captured, models: list[object], tmp_path: Path) -> None:
    """The table and the plot hold the printed numbers."""
    status, out, _ = run(capsys, "tradeoff", *models, "--output", tmp_path / "out", "--json")
    document = json.loads(out)
    assert status == 0
    assert document["files"] == [str(tmp_path / "out" / f"tradeoff.{suffix}") for suffix in ("csv", "png")]
    table = read_csv(tmp_path / "out" / "tradeoff.csv")
    scores = [each["score"] for each in document["models"]]
    assert [float(row["trade_off"]) for row in table] == pytest.approx(scores, abs=1e-4)
    assert is_png(tmp_path / "out" / "tradeoff.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "MoTE", "4"], "SERIES LAYERS RESULT"),
        (["--model", "MoTE", "four", "OTHER"], "'four'"),
        (["--model", "MoTE", "4", "OTHER"], "not a result of mote-fast eval"),
        (["OTHER"], "not a result of mote-fast eval"),
        (["OTHER", "--output", "out"], "--output draws several models"),
    ],
)
def test_failures_are_one_clear_line(capsys: Captured, tmp_path: Path, arguments: list[str], message: str) -> None:
    """The status is 2, and one line of error names the problem."""
    (tmp_path / "other.txt").write_text("a.mp4 0\n")
    given = [str(tmp_path / "other.txt") if argument == "OTHER" else argument for argument in arguments]
    status, out, err = run(capsys, "tradeoff", *given)
    assert (status, out) == (2, "")
    assert err.startswith("mote-fast: error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("arguments", [[], ["a.json", "--model", "MoTE", "4", "b.json"]])
def test_one_way_to_give_results(arguments: list[str], capsys: Captured) -> None:
    """Results of one model or of several are required, but not both."""
    with pytest.raises(SystemExit) as exit_info:
        main(["tradeoff", *arguments])
    assert exit_info.value.code == 2
    assert "RESULT" in capsys.readouterr().err
