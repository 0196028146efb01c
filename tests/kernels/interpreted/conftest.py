"""Tests here run Triton's interpreter, which Triton only enters when TRITON_INTERPRET=1 was set before it was imported.

They therefore need their own process (``make interpret``); any other session skips them. Hypothesis profiles:
``quick`` repeats the same few cases, ``long`` draws at least 200 new ones per test.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if INTERPRETED else ["test_*.py"]

if INTERPRETED:
    shared = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
    settings.register_profile("quick", max_examples=12, derandomize=True, **shared)
    settings.register_profile("long", max_examples=220, **shared)


def pytest_configure(config: pytest.Config) -> None:
    if INTERPRETED and not config.getoption("--hypothesis-profile"):
        settings.load_profile("quick")
