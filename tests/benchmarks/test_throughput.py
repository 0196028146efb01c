"""The front door on the tiny preset: every stage runs, its arms agree, and what it writes can be read back."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import report
import throughput
import torch
from data import scene
from guard import violations
from stages import STAGES, workloads_of
from stages.measure import FIELDS, measure
from stages.peaks import GEMM
from stages.setting import Setting
from stages.workload import RELEASED, Arm, Workload

from mote_fast.data.decoding.video_writer import write_video

pytest.importorskip("decord", reason="the released recipe decodes with decord")


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("throughput")
    video = Path(write_video(folder / "video.mp4", scene(20), 25))
    return Setting("tiny", video, folder, frames=4, quick=True)


@pytest.mark.parametrize("stage", STAGES)
def test_arms_agree(setting: Setting, stage: str) -> None:
    """A ratio means something only where both arms give the same; each arm has a name of its own."""
    for workload in workloads_of(setting, [stage]):
        names = [arm.name for arm in workload.arms]
        assert names[0] == RELEASED
        assert "mote_fast" in names
        assert len(set(names)) == len(names)
        expected = workload.baseline.call()
        for arm in workload.arms:
            output = arm.call()
            if arm.tolerance is None or arm.yardstick:
                continue
            rows = min(len(output), len(expected))
            difference = (output[:rows].double() - expected[:rows].double()).norm() / expected[:rows].double().norm()
            assert difference <= arm.tolerance, (workload.name, arm.name)


def test_shared_workloads_are_measured_once(setting: Setting) -> None:
    """ "all" has the parts of the end-to-end path in stages of their own too."""
    keys = [(workload.stage, workload.name) for workload in workloads_of(setting, list(STAGES))]
    assert len(set(keys)) == len(keys)


@pytest.mark.heavy
def test_a_part_is_scaled_to_the_whole() -> None:
    """A quarter of the work, measured, counts as the whole; rates are of what was done."""
    tensor = torch.ones(2, 2)
    arms = [
        Arm(RELEASED, lambda: sum(range(200_000)), clips=1, scale=4.0, flops=1e9, tolerance=None),
        Arm("mote_fast", lambda: sum(range(200_000)), clips=4, flops=1e9, tolerance=None),
        Arm(GEMM, lambda: tensor, flops=1e9, tolerance=None, yardstick=True),
    ]
    quarter, _, peak = measure(Workload("clip", "scaled", arms, rounds=5), torch.device("cpu"))
    assert quarter["ratio"] == 1.0
    assert quarter["clips_per_s"] == pytest.approx(4.0 / (quarter["median_ms"] / 1e3), rel=1e-3)
    assert quarter["tflops"] == pytest.approx(4.0 * 1e9 / (quarter["median_ms"] / 1e3) / 1e12, rel=1e-3)
    assert peak["ratio"] is None
    assert peak["of_peak"] == pytest.approx(1.0)


@pytest.mark.heavy
def test_outputs_that_differ_are_told() -> None:
    """The table shows the relative difference and the cosine to the baseline's output."""
    outputs = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    arms = [Arm(name, lambda out=out: out) for name, out in zip((RELEASED, "mote_fast"), outputs, strict=True)]
    first, second = measure(Workload("clip", "outputs", arms, rounds=2), torch.device("cpu"))
    assert (first["difference"], first["cosine"]) == (0.0, 1.0)
    assert second["difference"] == pytest.approx(2**0.5 / 5, rel=1e-3)
    assert second["cosine"] == pytest.approx(0.96)


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One run end to end: the tables, the three files, the breakdown, and the guard against itself."""
    written = tmp_path / "run.json"
    command = ["throughput.py", "--preset", "tiny", "--quick", "--stage", "end2end", "--device", "cpu"]
    files = ["--json", str(written), "--csv", str(tmp_path / "run.csv"), "--plot", str(tmp_path / "run.png")]
    monkeypatch.setattr(sys, "argv", command + files)
    assert throughput.main() == 0
    shown = capsys.readouterr().out
    assert "where a video's time goes" in shown
    assert "cold start, adding" in shown
    result: dict[str, Any] = json.loads(written.read_text())
    assert result["environment"]["commit"]
    assert {row["stage"] for row in result["rows"]} == {"decode", "transform", "clip", "head", "text", "end2end"}
    assert [sum(each["shares"].values()) for each in result["breakdown"]] == pytest.approx([1.0, 1.0])
    assert violations(result, result) == []
    with (tmp_path / "run.csv").open() as file:
        assert tuple(next(csv.reader(file))) == FIELDS
    assert (tmp_path / "run.png").stat().st_size > 0
    assert (tmp_path / "run_waterfall.png").stat().st_size > 0


@pytest.mark.heavy
def test_check_fails_on_a_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 1 and the line names the arm, where the committed run was out of reach."""
    committed = tmp_path / "committed.json"
    command = ["throughput.py", "--preset", "tiny", "--quick", "--stage", "transform", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*command, "--json", str(committed)])
    assert throughput.main() == 0
    result = json.loads(committed.read_text())
    next(row for row in result["rows"] if row["arm"] == "mote_fast")["ratio"] = 1e6
    committed.write_text(json.dumps(result))
    monkeypatch.setattr(sys, "argv", [*command, "--check", str(committed)])
    assert throughput.main() == 1
    assert "transform, mote_fast:" in capsys.readouterr().err


def test_break_even() -> None:
    """What was spent, over what each video wins; never, where nothing is won."""
    rows = [
        {"workload": "one video", "arm": "mote_fast", "median_ms": 100.0, "preparation_ms": 0.0},
        {"workload": "one video", "arm": "mote_fast, compiled", "median_ms": 90.0, "preparation_ms": 5000.0},
        {"workload": "one video", "arm": "mote_fast, int8", "median_ms": 120.0, "preparation_ms": 5000.0},
    ]
    assert report.break_even(rows) == {"mote_fast, compiled": 500.0, "mote_fast, int8": None}
