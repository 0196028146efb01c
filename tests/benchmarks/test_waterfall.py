"""The waterfall: sums of parts, in the order of the chain, with what was not measured left out."""

from __future__ import annotations

import pytest
from class_features import CACHED
from harness import OURS
from rows import Row, value
from setting import COMPILED, INT8
from throughput import CHAIN, SCENARIOS, Parts, applicable, break_even, breakdown, waterfall
from tower import OWN_BLAS, PLAIN_MLP, TRIMMED, UNTRIMMED

PARTS = {
    "decode": {"official": 4.0, OURS: 2.0},
    "transform": {"official": 3.0, OURS: 1.0},
    "text": {"official": 100.0, "short context": 30.0, "shared prefixes, padded": 90.0, OURS: 20.0, CACHED: 0.5},
    "clip": {"official": 12.0, TRIMMED: 11.5, PLAIN_MLP: 11.0, UNTRIMMED: 10.5, OWN_BLAS: 10.25, OURS: 10.0},
    "head": {
        "official": 2.0,
        "official, once through": 1.0,
        "mote_fast, unfolded": 0.75,
        "mote_fast, twice through": 0.5,
        OURS: 0.25,
    },
}
EXTRA = {**PARTS, "clip": {**PARTS["clip"], COMPILED: 9.0, INT8: 5.0}}


def lines_of(scenario: str, parts: Parts, metric: str) -> dict[str, float]:
    return {row.arm: row.median for row in waterfall(scenario, parts) if row.metric == metric}


@pytest.mark.parametrize(("scenario", "last"), [("cold start", 33.25), ("warm start", 13.75), ("steady state", 13.25)])
def test_walk_ends_at_the_default_path(scenario: str, last: float) -> None:
    """Every optimisation added is the default path, whose parts are summed by hand here."""
    times = list(lines_of(scenario, PARTS, "time").values())
    assert times[0] == pytest.approx(121.0 if "text" in SCENARIOS[scenario] else 21.0)
    assert times[-1] == pytest.approx(last)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_is_bought_multiplies_to_the_whole(scenario: str) -> None:
    """Each line's gain is over the line above it, so that the gains' product is the last line's ratio."""
    product = 1.0
    whole = lines_of(scenario, EXTRA, "in all")
    for name, bought in lines_of(scenario, EXTRA, "bought").items():
        product *= bought
        assert whole[name] == pytest.approx(product)


def test_switched_off_alone() -> None:
    """Off alone changes one part of the default path and no other."""
    off = lines_of("steady state", EXTRA, "off alone")
    assert off["decoder"] == pytest.approx(13.25 + 2.0)
    assert off["trimmed last block"] == pytest.approx(13.25 + 0.5)
    assert off["faster float32 products"] == pytest.approx(13.25 + 0.25)
    assert off["fused MLP"] == pytest.approx(13.25 + 1.0)
    assert off["once-through head"] == pytest.approx(13.25 + 0.25)
    assert off["fold"] == pytest.approx(13.25 + 0.5)
    # A folded head has nothing to merge.
    assert off["merge in one pass"] == pytest.approx(13.25)
    # The default path does without the two that an argument adds.
    assert off["compile"] == off["int8"] == pytest.approx(13.25)


def test_a_warm_cache_leaves_the_text_shortcuts_idle() -> None:
    """With the cache on, turning the shortcuts of encoding off costs nothing; turning the cache off costs them."""
    off = lines_of("warm start", PARTS, "off alone")
    assert off["short context"] == off["shared prefixes"] == pytest.approx(13.75)
    assert off["cache of class features"] == pytest.approx(33.25)


def test_what_a_scenario_cannot_have_is_left_out() -> None:
    """A cold start has no cache, a start no compiled tower, a steady state no text."""
    names = {scenario: {each.name for each in applicable(scenario, EXTRA)} for scenario in SCENARIOS}
    assert "cache of class features" not in names["cold start"]
    assert not names["warm start"] & {"compile", "int8"}
    assert names["steady state"] == {each.name for each in CHAIN if each.part != "text"}


def test_arms_that_were_not_measured_are_left_out() -> None:
    """A run without int8 still has a waterfall."""
    assert not {"compile", "int8"} & lines_of("steady state", PARTS, "time").keys()


def test_shares_add_up() -> None:
    """The breakdown is of the whole, beside which the parts' sum stands."""
    whole = [Row("end2end", "one video", arm, "time", "ms", 26.5) for arm in ("official", OURS)]
    rows = list(breakdown(PARTS, whole))
    shares = {row.metric: row.median for row in rows if row.arm == OURS and row.metric.endswith("share")}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["clip, share"] == pytest.approx(10.0 / 13.25)
    assert value(rows, rows[0].case, OURS, "parts over whole") == pytest.approx(0.5)


def test_break_even() -> None:
    """What was spent, over what each video wins; never, where nothing is won."""
    figures = ((OURS, 100.0, 0.0), (COMPILED, 90.0, 5000.0), (INT8, 120.0, 5000.0))
    rows = [Row("end2end", "one video", arm, "time", "ms", time) for arm, time, _ in figures]
    rows += [Row("end2end", "one video", arm, "preparation", "ms", spent) for arm, _, spent in figures if spent]
    assert [(row.arm, row.median) for row in break_even(rows)] == [(COMPILED, 500.0)]
