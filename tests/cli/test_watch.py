from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mote_fast.cli import main
from mote_fast.data import write_video
from tests.live_server import live_server, transport_stream

Captured = pytest.CaptureFixture[str]
LABELS = "plain red ring sliding to the right,striped star"
FRAMES = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), np.uint8)


@pytest.mark.heavy
def test_a_file_is_watched_to_its_end(tmp_path: Path, capsys: Captured) -> None:
    """Text has a line where the label changes, JSON an object for each window."""
    path = str(write_video(tmp_path / "noise.mp4", FRAMES, fps=10))
    command = ["watch", path, "--labels", LABELS, "--window", "1", "--hop", "0.5"]
    assert main([*command, "--jsonl"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [round(each["end"], 2) for each in records] == [1, 1.5, 2, 2.5, 3]
    assert all(len(each["scores"]) == 2 for each in records)
    assert main([*command, "--background", "1.9", "--seconds", "2"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "none of these" in line


@pytest.mark.heavy
def test_a_lost_stream_has_a_status_of_its_own(capsys: Captured) -> None:
    """What was seen is printed, the interruption too, and why it is given up."""
    with live_server(transport_stream(FRAMES, 10), closes=True) as server:
        assert main(["watch", server.url, "--labels", LABELS, "--window", "1.6", "--hop", "1.6", "--retry", "0"]) == 3
    captured = capsys.readouterr()
    assert "interrupted: " in captured.out
    assert server.url in captured.err


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("file:///etc/passwd", []),
        ("http://127.0.0.1:1/x", []),
        ("/dev/video9999", []),
        ("missing.mp4", []),
        ("0", ["--hop", "9"]),
        ("0", ["--background", "1-2"]),
    ],
    ids=["scheme", "refused", "camera", "missing", "hop", "example"],
)
def test_bad_usage(source: str, options: list[str], capsys: Captured) -> None:
    """One line says what is wrong."""
    assert main(["watch", source, "--labels", LABELS, *options]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("mote-fast: error: ")


@pytest.mark.heavy
def test_ctrl_c_ends_it() -> None:
    """Ctrl-C while a stream is silent ends the command, with the status of Ctrl-C, and its reader."""
    with live_server(transport_stream(FRAMES, 10)) as server:
        command = [sys.executable, "-m", "mote_fast.cli", "watch", server.url, "--labels", LABELS, "--model", "tiny"]
        options = ["--window", "1.6", "--hop", "1.6", "--jsonl"]
        with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["label"]
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
