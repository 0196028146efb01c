"""dtype="auto" is the faster of float32 and bfloat16; a bfloat16 that is slower is told of."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from mote_fast import create_model
from mote_fast.cli import main
from mote_fast.errors import ConfigError
from mote_fast.model.dtypes import resolve_dtype
from mote_fast.ops import products


@pytest.fixture(params=[0.0, 0.4, 1.05, 3.0])
def gain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """A processor on which bfloat16 is so many times as fast as float32; 0 cannot compute it."""
    monkeypatch.setattr("mote_fast.model.dtypes.bfloat16_gain", lambda device: request.param)
    return request.param


def test_auto_is_the_faster(gain: float) -> None:
    """A tie stays exact."""
    found = create_model("ViT-test", dtype="auto")
    assert found.clip.dtype == (torch.bfloat16 if gain == 3 else torch.float32)


def test_emulation_is_told_of(gain: float, caplog: pytest.LogCaptureFixture) -> None:
    """bfloat16 by name is what runs, and slower than float32 it is logged; float32 and auto are not."""
    with caplog.at_level(logging.WARNING, "mote_fast"):
        for dtype in (torch.float32, "auto", torch.bfloat16):
            model = create_model("ViT-test", dtype=dtype)
            assert (0 < gain < 1 and dtype == torch.bfloat16) == ("emulates" in caplog.text)
    assert model.clip.dtype == torch.bfloat16


@pytest.mark.parametrize("sets", [frozenset({"avx2"}), frozenset({"avx512_vnni"})])
def test_slow_int8_is_told_of(
    sets: frozenset[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenVINO's int8 was slower than float32 without VNNI; ONNX Runtime's was faster there too."""
    monkeypatch.setattr("mote_fast.clip.int8.instruction_sets", lambda: sets)
    with caplog.at_level(logging.WARNING, "mote_fast"):
        assert resolve_dtype("int8", "cpu") == "int8"
        assert not caplog.text
        assert resolve_dtype("int8-openvino", "cpu") == "int8-openvino"
    assert ("VNNI" in caplog.text) == ("avx2" in sets)


@pytest.mark.parametrize("dtype", ["fast", 32, None, torch.int8])
def test_other_values_are_refused(dtype: object) -> None:
    """With the values that there are."""
    with pytest.raises(ConfigError, match="auto"):
        create_model("ViT-test", dtype=dtype)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_names_of_dtypes(name: Any) -> None:
    """The words of the command line work in Python."""
    assert create_model("ViT-test", dtype=name).clip.dtype == getattr(torch, name)


@pytest.mark.heavy
def test_the_command_records_what_ran(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], moving_video: Path
) -> None:
    """--dtype auto classifies, in the dtype that was measured as faster."""
    asked: list[torch.device] = []
    monkeypatch.setattr("mote_fast.model.dtypes.bfloat16_gain", lambda device: asked.append(device) or 3.0)
    command = ("classify", str(moving_video), "--labels", "a,b", "--model", "tiny", "--device", "cpu", "--json")
    scores = {}
    for dtype in ("auto", "bfloat16"):
        assert main([*command, "--dtype", dtype]) == 0
        scores[dtype] = json.loads(capsys.readouterr().out)["videos"][0]["predictions"]
    assert scores["auto"] == scores["bfloat16"]
    assert asked[0] == torch.device("cpu")


def test_the_gain_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each device, with a device's failure counted as no gain."""
    monkeypatch.setattr(products, "_GAINS", {})
    found = products.bfloat16_gain(torch.device("cpu"))
    monkeypatch.setattr(products, "_measured_gain", lambda device: pytest.fail("measured again"))
    assert products.bfloat16_gain(torch.device("cpu")) == found > 0
