"""A hub on this machine, and a small model for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import mote_fast
from tests.hub_server import Hub, serve_hub


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, and an empty cache of its client."""
    with serve_hub(monkeypatch, tmp_path / "hub_cache") as found:
        yield found


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    found = mote_fast.create_model("ViT-test", layers=1, experts=2)
    found.classes = ["archery", "cello"]
    return found
