"""Pages quote the reports of GPUs by code, and say that there is none while there is none."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from device.predicted_times import COUNTED, STEPS
from device_figures import NOTHING, PAGES, REPORTS, ROOT, main, read_reports, times_part, written

from mote_fast.device_check.check import Check
from mote_fast.device_check.device_report import SectionResult, write_report

DEVICE: dict[str, Any] = {"name": "A GPU", "capability": "9.0"}


def made_up(folder: Path, **device: Any) -> Path:
    """A report as device_check writes it, of a GPU that does not exist."""
    checks = [
        Check("versions", "figure", figures={"torch": "2.14.1"}),
        Check("device", "figure", figures=device),
        Check("copy bandwidth", "figure", figures={"copy GB/s": 2999.6}),
        Check("B/16, mixed bf16, pair: down: triton", "figure", figures={"us": 9.4}),
        Check("ViT-B-16, 64 clips, eager", "figure", figures={"clips/s": 301.2, "ms": 220.0}),
        Check("pair", "fail", 1.0, 1e-5),
    ]
    write_report(folder, [SectionResult(0, "all", checks)])
    reports = folder / "device"
    reports.mkdir()
    (folder / "report.json").rename(reports / "a_gpu.json")
    return reports


def test_predictions_become_measurements(tmp_path: Path) -> None:
    """With a report in the folder every page quotes it, kernels.md beside the predictions; without one, none does."""
    for page in PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    reports = made_up(tmp_path, **DEVICE)
    main(tmp_path, reports)
    for page in PAGES:
        text = (tmp_path / page).read_text(encoding="utf-8")
        assert NOTHING not in text
        assert (
            "- A GPU, torch 2.14.1: copies 3000 GB/s; ViT-B-16, 64 clips, eager 301 clips/s; "
            "0 passed, 1 failed, 0 skipped, 5 measurements (`benchmarks/results/device/a_gpu.json`)"
        ) in text
    text = (tmp_path / "docs" / "kernels.md").read_text(encoding="utf-8")
    assert "| what | predicted, H100 | measured, A GPU |" in text
    assert "| one layer, ViT-B/16, down | 4.7 us | 9.4 us, 2 x |" in text
    assert "| training step, ViT-B-16, 64 clips, eager | 110 ms | 220 ms, 2 x |" in text
    # What the report lacks stays a prediction.
    assert "| one layer, ViT-B/16, up | 2.3 us |  |" in text
    shutil.rmtree(reports)
    main(tmp_path, reports)
    assert all((tmp_path / page).read_text() == (ROOT / page).read_text() for page in PAGES) or any(REPORTS.glob("*"))


def test_a_dry_run_is_no_report(tmp_path: Path) -> None:
    """Its times are a processor's."""
    with pytest.raises(SystemExit, match=r"a_gpu\.json: is no report of a GPU"):
        read_reports(made_up(tmp_path, name="x86_64", threads=2))


def test_every_prediction_is_shown() -> None:
    """In the table without a report too."""
    assert len(times_part([]).splitlines()) == 2 + len(COUNTED) + len(STEPS)


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_current(page: str) -> None:
    """The committed pages say what the committed reports say."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert written(page=text, parts=PAGES[page], reports=read_reports(REPORTS)) == text


def test_readme_says_whether_a_gpu_was_measured() -> None:
    """Its table of others has the same question in a row of its own."""
    (cell,) = re.findall(r"^\| measured on GPUs \| (\w+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert cell == ("yes" if read_reports(REPORTS) else "no")
