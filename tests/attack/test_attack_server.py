"""Requests to the server: bodies that are too large, malformed or cut off; each costs itself, and memory stays flat."""

from __future__ import annotations

import gc
import random
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import mote_fast
from tests.attack.conftest import Attack

pytest.importorskip("fastapi")

from mote_fast.serve.engine import Engine
from mote_fast.serve.limits import Limits
from tests.serve.served import BOUNDARY, DEMO, FORM, Served, form, part_of, running, with_labels

pytestmark = pytest.mark.heavy

PART = bytes(2**16)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, in which no upload may have a name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


def files_in(folder: Path) -> list[Path]:
    """The files; the start of processes makes folders of its own."""
    return [path for path in folder.iterdir() if path.is_file()]


def peak() -> int:
    """The most bytes that this process has had in memory since ``forget``."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def forget() -> None:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def endless(size: int) -> Iterator[bytes]:
    """A form whose video has so many bytes, in parts."""
    head, _, _ = part_of("video", "").rpartition(b"\r\n")
    yield head.replace(b'name="video"', b'name="video"; filename="v.mp4"')
    for _ in range(size // len(PART)):
        yield PART
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def test_large_uploads(attack: Attack, folder: Path) -> None:
    """With and without a stated length, and of small fields alone: 413, and the memory grows by under 50 MB."""
    megabytes = attack.size(40, 200)
    limits = Limits(upload_bytes=megabytes * 10**6)
    with closing(Engine(mote_fast.load("tiny").fold(), limits)) as engine, running(engine) as server:
        assert server.post("/v1/embed", [("video", DEMO[0])]).status == 200
        forget()
        before = peak()
        size = 3 * megabytes * 10**6 // 2
        stated = {**FORM, "Content-Length": str(size)}
        fields = (part_of("labels", "x" * 10_000) for _ in range(size // 10_000))
        for name, body, headers in (
            ("in chunks", endless(size), {**FORM, "Transfer-Encoding": "chunked"}),
            ("of a stated length", endless(size), stated),
            ("fields", fields, {**FORM, "Transfer-Encoding": "chunked"}),
        ):
            with attack.attempt(name):
                assert server.ask("POST", "/v1/classify", body, headers).status == 413
                assert files_in(folder) == []
        with attack.attempt("memory"):
            assert peak() - before < 50e6
        assert server.post("/v1/embed", [("video", DEMO[0])]).status == 200


def mutated(body: bytes, source: random.Random) -> bytes:
    """Change a body as a fault or a foe would."""
    at = source.randrange(len(body))
    length = source.choice((1, 2, 8, 64))
    return source.choice(
        (
            body[:at],
            body[:at] + source.randbytes(length) + body[at + length :],
            body[:at] + source.randbytes(length) + body[at:],
            body[:at] + body[at + length :],
            body[:at] + b"\r\n--" + BOUNDARY.encode() + source.choice((b"", b"\r\n", b"--", b"\r\n\r\n")) + body[at:],
            body[:at] + b"a" * 20_000 + body[at:],
            body * 2,
        )
    )


def test_malformed_bodies(attack: Attack, folder: Path) -> None:
    """Each is answered, by nothing worse than a refusal, and the server goes on."""
    source = random.Random(0)
    video = folder.parent / "v.mp4"
    video.write_bytes(b"no video")
    body = form([*with_labels(video, ["red ring", "blue cross"]), ("views", "1x1"), ("topk", "2")])
    with closing(Engine(mote_fast.load("tiny").fold(), Limits())) as engine, running(engine) as server:
        for at in range(attack.size(150, 4000)):
            with attack.attempt(at):
                answer = server.ask("POST", "/v1/classify", mutated(body, source), FORM)
                assert answer.status in (400, 413, 422), answer.text
                assert "/proc/" not in answer.text
        for boundary in ("", "x" * 300, '"', "a b", "\xff", "--", "end-of-part; boundary=b"):
            with attack.attempt(boundary):
                headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
                assert server.ask("POST", "/v1/classify", body, headers).status in (400, 415, 422)
        with attack.attempt("hung up"):
            hang_up(server, body, attack.size(20, 200))
            assert server.post("/v1/classify", with_labels(DEMO[0], ["ring"])).status == 200
            assert files_in(folder) == []


def hang_up(server: Served, body: bytes, times: int) -> None:
    """Begin requests, and end their connections anywhere."""
    for at in range(times):
        with closing(server.connect()) as connection:
            connection.putrequest("POST", "/v1/classify")
            for name, value in {**FORM, "Content-Length": str(len(body))}.items():
                connection.putheader(name, value)
            connection.endheaders(body[: at * len(body) // times])
    while "mote_fast_requests_running 0" not in server.get("/metrics").text:
        pass
