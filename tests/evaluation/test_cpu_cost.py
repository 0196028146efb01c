"""Estimates of the time that frames take on a CPU."""

from __future__ import annotations

import pytest
import torch

from mote_fast import create_model
from mote_fast.evaluation import cpu_cost
from mote_fast.evaluation.cpu_cost import FrameCost, about, frame_cost


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(20, "1 min"), (301, "5 min"), (7000, "117 min"), (7300, "2 h"), (200_000, "2 days")],
)
def test_time_in_its_unit(seconds: float, text: str) -> None:
    """Nobody reads 200,000 seconds."""
    assert about(seconds) == text


def test_only_what_takes_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few frames are not timed; many of a small tower take little; the random state stays as it was."""
    model = create_model("ViT-test")
    before = torch.get_rng_state()
    assert frame_cost(model, 10) is None
    assert frame_cost(model, 400) is None
    monkeypatch.setattr(cpu_cost, "WORTH_SAYING", 0.0)
    cost = frame_cost(model, 400)
    assert cost is not None
    assert cost.frames == 400
    assert cost.seconds > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_said() -> None:
    """The time, the frames, and that it is an estimate."""
    assert str(FrameCost(0.25, 14_400)) == (
        "about 60 min on this CPU for 14,400 frames in the image tower (an estimate: 3 frames took 0.25 s each; "
        "decoding comes on top)"
    )
