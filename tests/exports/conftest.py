"""The shipped model's export, made once for these tests."""

from __future__ import annotations

import pytest

import mote_fast
from mote_fast.data import read_labels
from mote_fast.runtime.environment import PRESETS
from tests.exports.exported import Exported, trained_model

CLASSES = PRESETS / "demo" / "actions.csv"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The shipped model in ONNX, with the features of the demo's actions."""
    model, folder = trained_model(), tmp_path_factory.mktemp("export") / "out"
    mote_fast.export(model, folder, labels=read_labels(CLASSES))
    return Exported(model, folder)
