"""Availability of torchcodec: it imports without FFmpeg's libraries, so only decoding shows a failure."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mote_fast.data.decoding import backend_torchcodec

if TYPE_CHECKING:
    from conftest import NumberedVideos

ROOT = Path(__file__).parents[3]

# The dynamic linker's message in torchcodec's error, for each version of FFmpeg that it tries.
NO_LIBRARY = """FFmpeg version {version}:
Traceback (most recent call last):
OSError: {name}: cannot open shared object file: No such file or directory
OSError: Could not load this library: /site-packages/torchcodec/libtorchcodec_core{version}.so
"""
WRONG_TORCH = """FFmpeg version 5:
Traceback (most recent call last):
OSError: /site-packages/torchcodec/libtorchcodec_core5.so: undefined symbol: _ZN3c1021throwNullDataPtrErrorEv
OSError: Could not load this library: /site-packages/torchcodec/libtorchcodec_core5.so
"""


def reason_for(message: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Why torchcodec is unavailable if its decoder fails with ``message``."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(message)

    decoders = types.ModuleType("torchcodec.decoders")
    decoders.VideoDecoder = fail  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    reason = backend_torchcodec.why_unavailable.__wrapped__()
    assert reason is not None
    assert "\n" not in reason
    return reason


def test_missing_libraries_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is one line, for any length of torchcodec's message; macOS libraries have other names."""
    names = ("libavutil.so.61", "libavdevice.so.60", "libavutil.59.dylib")
    message = "".join(NO_LIBRARY.format(version=9 - at, name=name) for at, name in enumerate(names))
    reason = reason_for(message, monkeypatch)
    assert all(name in reason for name in names)
    assert "apt-get install ffmpeg" in reason


def test_a_release_for_another_torch_is_not_blamed_on_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries of one version exist, but torchcodec does not fit the installed torch."""
    reason = reason_for(NO_LIBRARY.format(version=8, name="libavutil.so.60") + WRONG_TORCH, monkeypatch)
    assert "undefined symbol" in reason
    assert "with torch" in reason
    assert "FFmpeg" not in reason


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else may break without torchcodec."""
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    reason = backend_torchcodec.why_unavailable.__wrapped__()
    assert reason is not None
    assert "pip install torchcodec" in reason


@pytest.mark.heavy
def test_without_ffmpeg_reports_are_true(numbered_videos: NumberedVideos) -> None:
    """``doctor`` says that PyAV decodes and why; a request for torchcodec raises and blames no video."""
    video = numbered_videos.write("h264.mp4")
    program = f"""
import json
from mote_fast.data import read_frames
from mote_fast.cli import main
try:
    read_frames({str(video)!r}, [0], "torchcodec")
except Exception as error:
    print(json.dumps([type(error).__name__, str(error), len(read_frames({str(video)!r}, [0, 1]))]))
main(["doctor", "--json"])
"""
    command = [sys.executable, "tests/without_ffmpeg.py", sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    first, rest = done.stdout.split("\n", 1)
    kind, message, frames = json.loads(first)
    assert (kind, frames) == ("BackendError", 2)
    assert "libavutil" in message
    assert str(video) not in message
    decode = json.loads(rest)["backends"][0]
    assert decode["chosen"] == "pyav"
    assert "libavutil" in decode["others"]["torchcodec"]
