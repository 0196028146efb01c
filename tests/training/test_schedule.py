"""The learning rate against the official schedules' own tables."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.training.config.sections import OptimConfig
from mote_fast.training.schedule import learning_rate, refreshed_epoch, set_learning_rate

# The runs that the tables were made from (tests/golden/README.md).
RECIPES = {"cosine": OptimConfig(), "multistep": OptimConfig(schedule="multistep", milestones=(10, 20))}


@pytest.mark.parametrize("kind", RECIPES)
def test_golden_tables(kind: str, golden: dict[str, Any]) -> None:
    """Both groups' rates at every tabulated epoch, as the optimiser would hold them."""
    optim, rows = RECIPES[kind], golden["lr"][kind]
    assert len(rows) == 120
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": [weight]} for weight in weights])
    for epoch, clip_lr, head_lr in rows:
        set_learning_rate(optimizer, learning_rate(epoch, optim), optim.clip_ratio)
        found = [group["lr"] for group in optimizer.param_groups]
        assert found == pytest.approx([head_lr, clip_lr], rel=1e-9, abs=1e-18), epoch


def test_rate_is_refreshed_at_the_first_and_every_tenth_batch() -> None:
    """Batches 0 to 8 share the first's rate, 9 to 18 the tenth's, as in the official loop."""
    found = [refreshed_epoch(3, batch, 100) for batch in (0, 8, 9, 18, 19, 99)]
    assert found == pytest.approx([3.0, 3.0, 3.09, 3.09, 3.19, 3.99])


@pytest.mark.heavy
@given(st.integers(1, 500), st.data())
def test_refreshing_follows_the_released_loop(batches: int, data: st.DataObject) -> None:
    """For epochs of any length, the rate is the one that a loop with the official condition would have set last."""
    batch = data.draw(st.integers(0, batches - 1))
    at = 0.0
    for i in range(batch + 1):
        if i + 1 == 1 or (i + 1) % 10 == 0:
            at = i / batches
    assert refreshed_epoch(0, batch, batches) == at


def test_without_warm_up_the_first_rate_is_the_peak() -> None:
    """Fine-tuning may start at the peak rate."""
    assert learning_rate(0.0, OptimConfig(warmup_epochs=0.0)) == OptimConfig().lr
