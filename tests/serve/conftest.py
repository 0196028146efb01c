"""The server's packages are optional; the engine of a file's tests is one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import closing

import pytest

import mote_fast

collect_ignore_glob = [] if importlib.util.find_spec("fastapi") else ["test_*.py"]


@pytest.fixture(scope="module")
def model() -> mote_fast.VideoClassifier:
    return mote_fast.load("tiny").fold()


@pytest.fixture(scope="module")
def engine(model: mote_fast.VideoClassifier) -> Iterator[object]:
    from mote_fast.serve.engine import Engine
    from mote_fast.serve.limits import Limits

    with closing(Engine(model, Limits(upload_bytes=3 * 10**6, video_seconds=100, labels=50), workers=2)) as engine:
        yield engine


@pytest.fixture(scope="module")
def server(engine: object) -> Iterator[object]:
    from tests.serve.served import running

    with running(engine) as server:
        yield server
