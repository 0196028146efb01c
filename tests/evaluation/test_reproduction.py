"""Which evaluations the paper's rows need, and what becomes of their results."""

from __future__ import annotations

from typing import Any

import pytest

from mote_fast.errors import ConfigError
from mote_fast.evaluation.paper_rows import K400, ROWS, TABLES
from mote_fast.evaluation.reproduction import TEST_SETS, Run, compare, rows_of, runs_of
from mote_fast.model.zoo import list_models


def perfect(run: Run) -> dict[str, Any]:
    """A result of 50 % on the first split, 100 % on average."""
    splits = [{"running": {"readable": {"top1": 50.0}}}]
    return {"splits": splits, "mean": {"running": {"readable": {"top1": {"mean": 100.0, "deviation": 0.0}}}}}


def test_tables() -> None:
    """Tables 3 and 4, and the last row of Table 1, have released models; each of these has a name."""
    assert TABLES == ("1", "3", "4")
    assert [row.name for row in rows_of(["1"])] == ["modulation"]
    assert {row.model for row in ROWS} - {None} <= list_models().keys()
    with pytest.raises(ConfigError, match="'2b'"):
        rows_of(["2b"])


def test_runs_are_made_once() -> None:
    """Rows share evaluations: 4x3 and 1x1 close-set, 3x1 zero-shot."""
    runs = runs_of(rows_of(TABLES))
    assert len(set(runs)) == len(runs) == 9
    assert {run.views for run in runs if run.data_set != K400} == {"3x1"}
    assert {run.views for run in runs if run.data_set == K400} == {"1x1", "4x3"}
    assert len({run.name for run in runs}) == len(runs)
    assert {run.data_set for run in runs} == set(TEST_SETS)


def test_a_missing_result_leaves_its_figures_open() -> None:
    """Also those that are combined from it, and no others."""
    rows = rows_of(["1", "4"])
    runs = runs_of(rows)
    everything = {run: perfect(run) for run in runs}
    ours = {(each.row, each.data_set): each.ours for each in compare(rows, everything, "running")}
    assert set(ours.values()) == {100.0, 50.0}
    assert ours["modulation", "K600 split 1"] == 50.0
    lacking = {run: result for run, result in everything.items() if run != Run("mote-l14-k400", "HMDB-51", "3x1")}
    without = {(each.row, each.data_set) for each in compare(rows, lacking, "running") if each.ours is None}
    assert without == {
        ("modulation", "HMDB-51"),
        ("ViT-L/14, 4x3", "HM_ZS"),
        ("ViT-L/14, 4x3", "trade-off"),
    }
