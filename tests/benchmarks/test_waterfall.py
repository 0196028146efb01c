"""The waterfall: sums of parts, in the order of the chain, with what was not measured left out."""

from __future__ import annotations

import pytest
from stages.setting import COMPILED, INT8
from stages.tower import PLAIN_MLP, UNTRIMMED
from waterfall import CACHED, CHAIN, OURS, SCENARIOS, applicable, shares, total, waterfall

PARTS = {
    "decode": {"released": 4.0, OURS: 2.0},
    "transform": {"released": 3.0, OURS: 1.0},
    "text": {"released": 100.0, "short context": 30.0, "shared prefixes, padded": 90.0, OURS: 20.0, CACHED: 0.5},
    "clip": {"released": 12.0, PLAIN_MLP: 11.0, UNTRIMMED: 10.5, OURS: 10.0},
    "head": {
        "released": 2.0,
        "released, once through": 1.0,
        "mote_fast, unfolded": 0.75,
        "mote_fast, twice through": 0.5,
        OURS: 0.25,
    },
}
EXTRA = {**PARTS, "clip": {**PARTS["clip"], COMPILED: 9.0, INT8: 5.0}}


@pytest.mark.parametrize(("scenario", "last"), [("cold start", 33.25), ("warm start", 13.75), ("steady state", 13.25)])
def test_walk_ends_at_the_default_path(scenario: str, last: float) -> None:
    """Every optimisation added is the default path, whose parts are summed by hand here."""
    steps = waterfall(scenario, PARTS)
    assert steps[0].seconds == pytest.approx(121.0 if "text" in SCENARIOS[scenario] else 21.0)
    assert steps[-1].seconds == pytest.approx(last)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_is_bought_multiplies_to_the_whole(scenario: str) -> None:
    """Each line's gain is over the line above it, so that the gains' product is the last line's ratio."""
    product = 1.0
    for step in waterfall(scenario, EXTRA):
        product *= step.bought
        assert step.ratio == pytest.approx(product)


def test_switched_off_alone() -> None:
    """Off alone changes one part of the default path and no other."""
    steps = {step.name: step for step in waterfall("steady state", EXTRA)}
    assert steps["decoder"].off_alone == pytest.approx(13.25 + 2.0)
    assert steps["trimmed last block"].off_alone == pytest.approx(13.25 + 0.5)
    assert steps["fused MLP"].off_alone == pytest.approx(13.25 + 1.0)
    assert steps["once-through head"].off_alone == pytest.approx(13.25 + 0.25)
    assert steps["fold"].off_alone == pytest.approx(13.25 + 0.5)
    # A folded head has nothing to merge.
    assert steps["merge in one pass"].off_alone == pytest.approx(13.25)
    # The default path does without the two that an argument adds.
    assert steps["compile"].off_alone == steps["int8"].off_alone == pytest.approx(13.25)


def test_a_warm_cache_leaves_the_text_shortcuts_idle() -> None:
    """With the cache on, turning the shortcuts of encoding off costs nothing; turning the cache off costs them."""
    steps = {step.name: step for step in waterfall("warm start", PARTS)}
    assert steps["short context"].off_alone == steps["shared prefixes"].off_alone == pytest.approx(13.75)
    assert steps["cache of class features"].off_alone == pytest.approx(33.25)


def test_what_a_scenario_cannot_have_is_left_out() -> None:
    """A cold start has no cache, a start no compiled tower, a steady state no text."""
    names = {scenario: {each.name for each in applicable(scenario, EXTRA)} for scenario in SCENARIOS}
    assert "cache of class features" not in names["cold start"]
    assert not names["warm start"] & {"compile", "int8"}
    assert names["steady state"] == {each.name for each in CHAIN if each.part != "text"}


def test_arms_that_were_not_measured_are_left_out() -> None:
    """A run without int8 still has a waterfall."""
    assert not {"compile", "int8"} & {step.name for step in waterfall("steady state", PARTS)}


def test_shares_add_up() -> None:
    """The breakdown is of the whole."""
    chosen = dict.fromkeys(SCENARIOS["steady state"], OURS)
    found = shares(PARTS, chosen)
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["clip"] == pytest.approx(10.0 / total(PARTS, chosen))
