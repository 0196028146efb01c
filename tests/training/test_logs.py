"""Metrics without repeated steps, and time measurement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mote_fast.errors import ConfigError
from mote_fast.training import logs
from mote_fast.training.logs import (
    METRICS_FILE,
    MetricsFile,
    RunLog,
    TensorBoardFiles,
    ThroughputMeter,
    duration,
    peak_memory,
)
from tests.full_disk import files_of_at_most


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    """Lines after the checkpoint are rewritten once; a shorter file is kept unchanged."""
    path = tmp_path / "run" / "metrics.jsonl"
    first = MetricsFile(path)
    first.write({"step": 1})
    kept = first.flushed()
    first.write({"step": 2})
    first.close()
    again = MetricsFile(path, kept)
    again.write({"step": 2, "again": True})
    assert again.flushed() == path.stat().st_size
    again.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1}, {"step": 2, "again": True}]
    MetricsFile(path, 10**6).close()
    assert len(path.read_text().splitlines()) == 2


def test_records_reach_metrics_and_tensorboard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first process writes both; another one writes nothing."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for leads in (True, False):
        folder = tmp_path / str(leads)
        with caplog.at_level("INFO"), RunLog(folder, leads=leads, step=0, steps=5, kept=0, tensorboard=True) as log:
            log.advance()
            log.record("train", 3, {"loss": 1.5, "note": None}, f"a line of {leads}")
            assert (log.flushed() > 0) == leads
    (record,) = map(json.loads, (tmp_path / "True" / METRICS_FILE).read_text().splitlines())
    assert record == {"kind": "train", "step": 3, "loss": 1.5, "note": None}
    events = EventAccumulator(str(tmp_path / "True" / "tensorboard"))
    events.Reload()
    (scalar,) = events.Scalars("train/loss")
    assert (scalar.step, scalar.value) == (3, 1.5)
    assert "a line of True" in caplog.text
    assert "a line of False" not in caplog.text
    assert not (tmp_path / "False").exists()


def test_what_is_not_finite_is_recorded_as_null(tmp_path: Path) -> None:
    """JSON has no NaN and Infinity, and float16 has them whenever its loss scaler backs off."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    with RunLog(tmp_path, leads=True, step=0, steps=1, kept=0, tensorboard=False) as log:
        log.record("train", 1, {"loss": float("nan"), "gradient_norm": float("inf"), "lr": 1.0}, "")
    record = json.loads((tmp_path / METRICS_FILE).read_text(), parse_constant=refuse)
    assert (record["loss"], record["gradient_norm"], record["lr"]) == (None, None, 1.0)


def test_pace_tells_waiting_from_working(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting is the time inside the iterator; the rest of the interval is work."""
    now = [0.0]
    monkeypatch.setattr(logs.time, "perf_counter", lambda: now[0])

    def slow() -> Iterator[int]:
        for item in range(3):
            now[0] += 1.0
            yield item

    pace = ThroughputMeter()
    for _ in pace.timed(slow()):
        now[0] += 3.0
        pace.count(8)
    assert pace.waited == pytest.approx(0.25)
    assert pace.clips_per_second == pytest.approx(2.0)
    pace.restart()
    assert pace.waited == 0.0


def test_a_gpu_waits_only_for_what_comes_after_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host waits a second for each batch; the GPU is at work for all of the first, and half of the others."""
    now = [0.0]
    passed = iter([10.0, 10.0, 20.0, 520.0, 600.0, 1100.0, 1100.0])
    monkeypatch.setattr(logs.time, "perf_counter", lambda: now[0])

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = next(passed)

        def elapsed_time(self, later: Event) -> float:
            return later.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    pace = ThroughputMeter(on_gpu=True)
    for _ in pace.timed(iter(range(3))):
        now[0] += 2.0
    assert pace.gpu_waited == pytest.approx(1.0 / 6.0)
    pace.restart()
    assert pace.gpu_waited == 0.0
    assert ThroughputMeter().gpu_waited is None


def test_memory_and_duration() -> None:
    """Peak memory is positive, and times are readable."""
    assert peak_memory(torch.device("cpu")) > 1e6
    assert duration(3725.4) == "1:02:05"


def test_metrics_that_do_not_fit_are_a_clear_error(tmp_path: Path) -> None:
    """A full disk names the file; closing it does not fail again."""
    metrics = MetricsFile(tmp_path / METRICS_FILE)
    with files_of_at_most(4), pytest.raises(ConfigError, match=r"metrics\.jsonl: cannot be written"):
        metrics.write({"step": 1})
    metrics.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_costs_the_plots_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """TensorBoard writes in a thread, whose error shows at a later record or the end; one warning names the folder."""
    for records in (1, 300):
        caplog.clear()
        board = TensorBoardFiles(tmp_path / str(records), 0)
        with files_of_at_most(10):
            for step in range(records):
                board.write("train", step, {"loss": 1.0})
            board.close()
            board.write("train", records, {"loss": 1.0})
        assert caplog.text.count(f"{records}: cannot be written") == 1
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file: cannot be written"):
        TensorBoardFiles(tmp_path / "file", 0)
