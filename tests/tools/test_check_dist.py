"""The checks of built archives."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from tools import check_dist


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one library file and one kernel."""
    for name in ("mote_fast/video.py", "kernels/merge.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(check_dist, "ROOT", tmp_path)
    check_dist.subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    check_dist.subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    return tmp_path


def pack(folder: Path, wheel: list[str], source: list[str]) -> tuple[Path, Path]:
    """A wheel and a source archive with empty files of these names."""
    wheel_path, source_path = folder / "m-0.1.0-py3-none-any.whl", folder / "m-0.1.0.tar.gz"
    with zipfile.ZipFile(wheel_path, "w") as archive:
        for name in wheel:
            archive.writestr(name, "")
    with tarfile.open(source_path, "w:gz") as archive:
        for name in source:
            archive.addfile(tarfile.TarInfo(f"m-0.1.0/{name}"))
    return wheel_path, source_path


WHEEL = ["mote_fast/video.py", "mote_fast/kernels/merge.py", "mote_fast-0.1.0.dist-info/METADATA"]
SOURCE = ["mote_fast/video.py", "kernels/merge.py", *check_dist.SOURCES]


def test_complete_archives_pass(checkout: Path) -> None:
    """kernels/ is mote_fast.kernels in the wheel alone."""
    check_dist.check_contents(*pack(checkout, WHEEL, SOURCE))


@pytest.mark.parametrize(
    ("wheel", "source", "message"),
    [
        (WHEEL[1:], SOURCE, "video.py is missing in m-0.1.0-py3"),
        ([WHEEL[0], "kernels/merge.py"], SOURCE, "mote_fast/kernels/merge.py is missing"),
        ([*WHEEL, "tests/conftest.py"], SOURCE, "tests/conftest.py does not belong into"),
        (WHEEL, SOURCE[:-1], "train.py is missing in m-0.1.0.tar.gz"),
    ],
)
def test_incomplete_archives_are_named(checkout: Path, wheel: list[str], source: list[str], message: str) -> None:
    """A wheel without its kernels would fail at a stranger's alone."""
    with pytest.raises(SystemExit, match=message):
        check_dist.check_contents(*pack(checkout, wheel, source))


def test_remains_of_an_earlier_build_are_refused(tmp_path: Path) -> None:
    """Otherwise the wheel that is checked may not be the one that is published."""
    for name in ("m-0.1.0-py3-none-any.whl", "m-0.2.0-py3-none-any.whl", "m-0.2.0.tar.gz"):
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match="one wheel"):
        check_dist.archives(tmp_path)
