"""train.py killed, asked to stop, and started again: the result equals that of an uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from mote_fast.training.state import list_checkpoints
from tests.training.conftest import Launched, VideoFolder, assert_same_run

# Whole runs.
pytestmark = pytest.mark.heavy

KILLS = 10


def test_killed_then_asked_to_stop_then_finished(videos: VideoFolder, tmp_path: Path) -> None:
    """kill -9, then SIGTERM (which saves and exits with 0), then the rest: bit for bit the uninterrupted run."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    options = {"run__save_every": 2, "run__eval_every": 1, "optim__epochs": 3}
    # Every part is a separate program: the arithmetic of this process depends on what ran in it before.
    assert_completes(Launched(videos.write_config(straight, **options)))
    path = videos.write_config(broken, **options)

    run = Launched(path)
    run.until(3)
    run.process.kill()
    assert run.end() == -signal.SIGKILL

    run = Launched(path)
    run.until(6)
    run.process.terminate()
    assert run.end() == 0, run.text
    assert "resumed" in run.text
    assert "SIGTERM: saving after the last whole step" in run.text
    saved = list_checkpoints(broken / "checkpoints")[-1][0]
    assert saved >= 6

    assert_completes(Launched(path))
    assert_same_run(straight, broken)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_kills_at_random_points(videos: VideoFolder, tmp_path: Path, processes: int) -> None:
    """Ten times killed without warning, in steps, in saves, at any instant: same weights, same metrics."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    # 120 steps, more than are taken before ten kills.
    options = {"run__save_every": 1, "run__eval_every": 5, "optim__epochs": 20 * processes, "data__batch_size": 4}
    assert_completes(Launched(videos.write_config(straight, **options), processes))
    path, draws = videos.write_config(broken, **options), random.Random(processes)
    steps, kills = 0, 0
    for _ in range(KILLS):
        run = Launched(path, processes)
        run.until(steps + draws.randint(1, 3))
        # At a random time after the end of a step.
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(timeout=draws.uniform(0.0, 0.3))
        victims = run.workers()
        for victim in victims if draws.random() < 0.5 else [draws.choice(victims)]:
            os.kill(victim, signal.SIGKILL)
        kills += run.end() != 0
        # The first kill may come before the first checkpoint is complete.
        steps = max((step for step, _ in list_checkpoints(broken / "checkpoints")), default=0)
    assert kills == KILLS
    assert_completes(Launched(path, processes))
    assert_same_run(straight, broken)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_process_of_two_is_asked_to_stop(videos: VideoFolder, tmp_path: Path, number: int) -> None:
    """A signal to one rank stops all after the same step, with 0 and a checkpoint."""
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    options = {"run__save_every": 0, "optim__epochs": 8}
    path = videos.write_config(stopped, **options)
    run = Launched(path, 2)
    run.until(3)
    os.kill(run.workers()[-1], number)
    assert run.end() == 0, run.text
    assert len(list_checkpoints(stopped / "checkpoints")) >= 1
    assert_completes(Launched(path, 2))
    assert_completes(Launched(videos.write_config(straight, **options), 2))
    assert_same_run(straight, stopped)


def assert_completes(run: Launched) -> None:
    assert run.end() == 0, run.text
    assert "done:" in run.text
