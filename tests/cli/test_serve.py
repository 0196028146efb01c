"""mote-fast serve: answers until it is told to stop, and then finishes what runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mote_fast.cli import main

pytest.importorskip("fastapi")

Captured = pytest.CaptureFixture[str]


@pytest.mark.heavy
def test_a_signal_drains(tmp_path: Path) -> None:
    """SIGTERM in the middle of an upload: that request is answered, another is not taken, and the status is 0."""
    from tests.serve.served import DEMO, FORM, Served, form

    (tmp_path / "token").write_text("secret\n", encoding="utf-8")
    command = ["serve", "--model", "tiny", "--labels", "ring,cross", "--port", "0", "--workers", "1", "--token-file"]
    with subprocess.Popen(
        [sys.executable, "-m", "mote_fast.cli", *command, str(tmp_path / "token")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().strip().strip("/").rpartition(":")[2])
        body = form([("video", DEMO[0])])
        bearer = {"Authorization": "Bearer secret"}
        server = Served(None, port)
        assert server.get("/v1/info", **bearer).document["labels"] == ["ring", "cross"]
        slow = server.connect()
        slow.putrequest("POST", "/v1/classify")
        for name, value in {**FORM, **bearer, "Content-Length": str(len(body))}.items():
            slow.putheader(name, value)
        slow.endheaders(body[:1000])
        while "mote_fast_requests_running 0" in server.get("/metrics", **bearer).text:
            pass
        process.send_signal(signal.SIGTERM)
        # Until the port is closed.
        with suppress(ConnectionError):
            while server.get("/healthz").status:
                pass
        slow.send(body[1000:])
        answer = slow.getresponse()
        assert answer.status == 200
        assert b'"ring"' in answer.read()
        slow.close()
        assert process.wait(60) == 0


def test_what_cannot_be_is_refused(capsys: Captured, tmp_path: Path) -> None:
    """One line that says what to do, before a model is loaded."""
    (tmp_path / "token").write_text("two words\n", encoding="utf-8")
    for words, message in (
        (("--token-file", tmp_path / "token"), "one word"),
        (("--token-file", tmp_path / "nowhere"), "nowhere"),
        (("--host", "203.0.113.1"), "cannot listen on 203.0.113.1, port 8000"),
        (("--port", 65536), "--port must be at most 65535"),
        (("--index", tmp_path), "no index.json"),
        (("--queue", 0), "--queue"),
        (("--max-upload", 0), "--max-upload"),
    ):
        assert main(["serve", *map(str, words)]) == 2
        assert message in capsys.readouterr().err
