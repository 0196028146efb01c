"""The benchmark of collections, on few videos."""

from __future__ import annotations

import batch
import pytest


@pytest.mark.slow
def test_arms_are_measured_alike(capsys: pytest.CaptureFixture[str]) -> None:
    """Each arm has a rate, a start and its memory; those of Ray are left out where it is not installed."""
    arms = [batch.LOOP, batch.STREAM, batch.LOCAL, batch.LOCAL_RARE]
    options = ["--preset", "vit-test", "--videos", "9", "--seconds", "1"]
    assert batch.main([*options, "--arms", *arms]) == 0
    shown = capsys.readouterr().out
    for arm in arms:
        for metric in ("throughput", "ratio", "start", "memory"):
            assert f"{arm}: {metric} " in shown
