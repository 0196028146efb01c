"""The line that a page has for each report of a GPU."""

from __future__ import annotations

from pathlib import Path

from device_figures import NOTHING, device_lines

from mote_fast.device_check.check import Check
from mote_fast.device_check.device_report import SectionResult, write_report


def test_a_report_is_quoted(tmp_path: Path) -> None:
    """Device, version, figures and how many checks failed, from a file as device_check writes it."""
    assert device_lines(tmp_path / "device") == [NOTHING]
    checks = [
        Check("versions", "figure", figures={"torch": "2.14.1"}),
        Check("device", "figure", figures={"name": "A GPU"}),
        Check("copy bandwidth", "figure", figures={"copy GB/s": 2999.6}),
        Check("ViT-B-16, 64 clips, eager", "figure", figures={"clips/s": 301.2}),
        Check("pair", "fail", 1.0, 1e-5),
    ]
    write_report(tmp_path, [SectionResult(0, "all", checks)])
    (tmp_path / "device").mkdir()
    (tmp_path / "report.json").rename(tmp_path / "device" / "a_gpu.json")
    assert device_lines(tmp_path / "device") == [
        "- A GPU, torch 2.14.1: copies 3000 GB/s; ViT-B-16, 64 clips, eager 301 clips/s; "
        "0 passed, 1 failed, 0 skipped, 4 measurements (`benchmarks/results/device/a_gpu.json`)"
    ]
