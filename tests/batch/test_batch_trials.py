"""Kills at random instants: each video still has one row, that of an undisturbed run (make batch-trials)."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

import pytest

from tests.batch.trials import disturb, make_videos

log = logging.getLogger(__name__)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")

ENGINES = [pytest.param("local", 1), pytest.param("ray", 2, marks=needs_ray)]


@pytest.mark.heavy
def test_a_few_kills(sound: list[Path], tmp_path: Path) -> None:
    """The quick form: 40 videos, a driver and three workers."""
    injected = make_videos(tmp_path / "videos", sound, 40)
    found = disturb(tmp_path / "videos", tmp_path, "local", 40, 4, 1, drivers=1, workers=3, seed=1)
    found.check(injected, 40, 4, 1)
    assert found.drivers == 1


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "actors"), ENGINES)
def test_many_kills(engine: str, actors: int, sound: list[Path], tmp_path: Path) -> None:
    """1,000 videos, 50 of them damaged and 10 that crash; ten drivers and twenty workers are killed."""
    injected = make_videos(tmp_path / "videos", sound, 1000)
    found = disturb(tmp_path / "videos", tmp_path, engine, 1000, 16, actors, drivers=10, workers=20, seed=7)
    log.info("%s: %s", engine, found)
    found.check(injected, 1000, 16, actors)
    assert found.drivers == 10
    assert sum(found.workers.values()) == 20
