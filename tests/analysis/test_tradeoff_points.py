"""Points of the trade-off plot: the paper's own combined numbers."""

from __future__ import annotations

from typing import Any

import pytest

from mote_fast.analysis.tradeoff_points import TradeOffPoint, check_comparable, trade_off_csv, trade_off_point
from mote_fast.errors import ConfigError
from tests.evaluation.test_combine import result


def results(close_set: float, *zero_shot: float, names: tuple[str, ...] = ("ucf", "hmdb", "k600")) -> list[Any]:
    return [
        result("closeset", "k400", close_set),
        *(result("zeroshot", name, value) for name, value in zip(names, zero_shot, strict=True)),
    ]


def paper() -> list[TradeOffPoint]:
    """B/16 and L/14 of Table 4 with their 4 and 6 layers, as one series."""
    return [
        trade_off_point("MoTE", 4, results(81.8, 83.4, 55.8, 70.2)),
        trade_off_point("MoTE", 6, results(86.8, 88.7, 61.4, 78.4)),
    ]


def test_table_4() -> None:
    """HM_ZS and trade-off to the paper's rounding, in the CSV too."""
    base, large = paper()
    check_comparable([base, large])
    assert (base.close_set, base.hm_zs, base.score) == pytest.approx((81.8, 67.9, 74.2), abs=0.06)
    assert (large.close_set, large.hm_zs, large.score) == pytest.approx((86.8, 74.4, 80.1), abs=0.06)
    lines = trade_off_csv([base, large]).splitlines()
    assert lines[0] == "series,layers,k400,ucf,hmdb,k600,hm_zs,trade_off"
    assert lines[1] == f"MoTE,4,81.8000,83.4000,55.8000,70.2000,{base.hm_zs:.4f},{base.score:.4f}"


def test_columns_follow_names() -> None:
    """The order of a model's results does not change its columns."""
    other = trade_off_point("plain", 6, results(1.0, 4.0, 3.0, 2.0, names=("k600", "hmdb", "ucf")))
    check_comparable([*paper(), other])
    assert trade_off_csv([*paper(), other]).splitlines()[3].startswith("plain,6,1.0000,2.0000,3.0000,4.0000,")


def test_without_close_set() -> None:
    """A point needs a close-set result besides HM_ZS."""
    with pytest.raises(ConfigError, match=r"plain, 2 layers: .*close-set"):
        trade_off_point("plain", 2, [result("zeroshot", "ucf", 50.0)])


def test_points_that_do_not_compare() -> None:
    """Two models with equal layers, or with different data sets: the error names them."""
    with pytest.raises(ConfigError, match="MoTE: two models with 4 layers"):
        check_comparable([paper()[0], paper()[0]])
    fewer = trade_off_point("plain", 6, results(80.0, 70.0, names=("ucf",)))
    with pytest.raises(ConfigError, match="different data sets: k400 and hmdb, k600, ucf; k400 and ucf"):
        check_comparable([*paper(), fewer])
