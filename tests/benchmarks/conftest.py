"""A small setting whose cases take no time, and figures that nobody measured."""

from __future__ import annotations

from typing import Any

import pytest
from rows import Result
from setting import Setting, write_scene


@pytest.fixture(scope="session")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("benchmarks")
    return Setting(folder, ("ViT-test",), write_scene(folder / "video.mp4", 0.7), frames=4, quick=True)


@pytest.fixture
def result() -> Result:
    environment: dict[str, Any] = {
        "device": "cpu: x86_64, 2 threads",
        "processor": "A processor",
        "threads": 2,
        "versions": {"torch": "2.14.1"},
        "commit": "abc",
    }
    sizes = {"presets": ["ViT-test"], "frames": 8, "experts": 4, "quick": True, "dtype": "float32"}
    return Result(environment, sizes, [])
