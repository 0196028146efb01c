"""The scaling curves: the fit of a step by its experts' bytes, the axes, and the memory of whole processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import inference_scaling
import memory
import pytest
import scaling
from data import scene
from inference_scaling import AXES, fits_of
from stages.setting import Setting

from mote_fast.data.decoding.video_writer import write_video
from mote_fast.head.head_config import HeadConfig


def test_bytes_explain_a_step_that_only_moves_them() -> None:
    """A step made of seven passes over its experts at a copy's speed, and a fixed cost, has a slope of just 1."""
    speed = 10e9
    rows: list[dict[str, Any]] = [
        {"arm": "mote_fast", "expert_bytes": size, "step_ms": 5.0 + 1e3 * scaling.MOVED * size / speed}
        for size in (1 << 25, 1 << 26, 1 << 28)
    ]
    found = scaling.fit(rows, "mote_fast", speed)
    assert found["of_explained"] == pytest.approx(1.0, abs=1e-3)
    assert found["fixed_ms"] == pytest.approx(5.0, abs=1e-2)
    assert found["r2"] == pytest.approx(1.0)


def test_measured_rows_count_their_bytes() -> None:
    """A row's bytes are those of the head's expert weights."""
    rows, fits = scaling.measure("tiny", 2, [1, 2], rounds=1)
    sizes = scaling.PRESETS["tiny"]
    head = scaling.VideoHead(HeadConfig(sizes.embed_dim, sizes.heads, sizes.layers, 2))
    held = sum(value.nbytes for name, value in head.named_parameters() if name.endswith("mlp.weight"))
    assert {row["expert_bytes"] for row in rows if row["experts"] == 2} == {held}
    assert [fit["arm"] for fit in fits] == ["mote_fast", "eager"]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("scaling")
    return Setting("tiny", Path(write_video(folder / "video.mp4", scene(20), 25)), folder, frames=4, quick=True)


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_runs(setting: Setting, axis: str) -> None:
    """Each point of each axis has both arms, and an expected order for each."""
    pytest.importorskip("decord", reason="the released recipe decodes with decord")
    for size in AXES[axis].sizes[:2]:
        calls = AXES[axis].calls(setting, size)
        assert {"released", "mote_fast"} <= calls.keys() <= AXES[axis].expected.keys()
        for call in calls.values():
            call()


def test_exponents_stand_beside_their_order() -> None:
    """Rows of a linear axis give 1."""
    rows = [{"axis": "batch", "arm": "mote_fast", "size": size, "median_ms": 2.0 * size} for size in (1, 2, 4, 8)]
    (fit,) = fits_of(rows)
    assert (fit["expected"], fit["exponent"], fit["at_the_end"]) == (1, 1.0, 1.0)


@pytest.mark.parametrize("work", memory.WORK)
@pytest.mark.parametrize("arm", memory.ARMS)
def test_memory_arms_run(tmp_path: Path, work: str, arm: str) -> None:
    """Both arms of each kind of work run, in this process; peaks are taken in children."""
    pytest.importorskip("decord", reason="the released recipe decodes with decord")
    video = Path(write_video(tmp_path / "video.mp4", scene(20), 25))
    memory.WORK[work](arm, Setting("tiny", video, tmp_path, frames=4, quick=True))()


@pytest.mark.slow
def test_command_of_inference_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One axis from the command line: JSON and both plots."""
    files = ["--json", str(tmp_path / "run.json"), "--plot", str(tmp_path / "run.png")]
    monkeypatch.setattr(sys, "argv", ["inference_scaling.py", "--quick", "--axes", "batch", "--device", "cpu", *files])
    inference_scaling.main()
    assert (tmp_path / "run.json").stat().st_size > 0
    assert (tmp_path / "run.png").stat().st_size > 0
