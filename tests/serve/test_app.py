"""The server answers what the library does, whoever else asks, and a bad request costs itself alone."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import mote_fast
from mote_fast.data import read_frames, write_video
from mote_fast.data.loading import view_frames
from mote_fast.runtime.workers import WorkerPool
from mote_fast.search.video_index import Index
from mote_fast.serve import upload
from mote_fast.serve.app import Offer
from mote_fast.serve.engine import Engine
from mote_fast.serve.limits import MAX_FIELD_BYTES, Limits
from tests.serve.served import BOUNDARY, DEMO, FORM, Served, form, running, with_labels

pytestmark = pytest.mark.heavy

LABELS = ["plain red ring", "plain blue cross", "striped yellow ring", "dotted green star"]


def expected(model: mote_fast.VideoClassifier, video: Path, **options: Any) -> list[dict[str, Any]]:
    return [each.to_dict() for each in model.classify(video, LABELS, topk=None, **options)]


def test_answers_are_those_of_the_library(server: Served, model: mote_fast.VideoClassifier) -> None:
    """To the last bit: decoded elsewhere, but encoded in the same parts."""
    for video, views in ((DEMO[0], "3x1"), (DEMO[1], "1x1"), (DEMO[2], "2x3")):
        answer = server.post("/v1/classify", with_labels(video, LABELS, views=views, topk="9"))
        assert answer.status == 200, answer.text
        assert answer.document == {
            "predictions": expected(model, video, views=views),
            "replaced_frames": 0,
            "caution": model.caution,
        }
    answer = server.post("/v1/embed", [("video", DEMO[0])])
    assert answer.document["embedding"] == model.embed(DEMO[0]).tolist()


def test_rejection_is_that_of_the_library(server: Served, model: mote_fast.VideoClassifier) -> None:
    """A rejected video has no labels; a level that nobody measured is said."""
    for text, reject in (("-1", -1.0), ("1.5", 1.5), ("red ring\ngreen star", ["red ring", "green star"])):
        answer = server.post("/v1/classify", with_labels(DEMO[0], LABELS, reject=text))
        found = [each.to_dict() for each in model.classify(DEMO[0], LABELS, reject=reject)]
        assert answer.document["predictions"] == found
    assert model.classify(DEMO[0], LABELS, reject=1.5) == []
    answer = server.post("/v1/classify", with_labels(DEMO[0], LABELS, reject="auto"))
    assert answer.status == (400 if model.reject_level is None else 200)


def test_many_clients_at_once(server: Served, model: mote_fast.VideoClassifier) -> None:
    """32 requests, in turns classified with two sets of labels and embedded, get the answers that they get alone."""
    singles = [
        server.post("/v1/classify", with_labels(DEMO[at % 6], LABELS[at % 2 :])).document if at % 3 else
        server.post("/v1/embed", [("video", DEMO[at % 6])]).document
        for at in range(12)
    ]  # fmt: skip

    def ask(at: int) -> Any:
        if at % 3 == 0:
            return server.post("/v1/embed", [("video", DEMO[at % 6])])
        return server.post("/v1/classify", with_labels(DEMO[at % 6], LABELS[at % 2 :]))

    with ThreadPoolExecutor(32) as clients:
        answers = list(clients.map(ask, range(32)))
    assert [answer.status for answer in answers] == [200] * 32
    assert [answer.document for answer in answers] == [singles[at % 12] for at in range(32)]


def test_videos_that_share_a_pass(model: mote_fast.VideoClassifier) -> None:
    """A batch size mixes videos; their scores then differ in the last digits only."""
    with (
        closing(Engine(model, Limits(), workers=1, batch_size=64)) as engine,
        running(engine) as server,
        ThreadPoolExecutor(6) as clients,
    ):
        found = list(clients.map(lambda video: server.post("/v1/classify", with_labels(video, LABELS)), DEMO))
    for video, answer in zip(DEMO, found, strict=True):
        scores = {each["label"]: each["score"] for each in answer.document["predictions"]}
        assert scores == pytest.approx({each["label"]: each["score"] for each in expected(model, video)}, abs=1e-6)


def test_bad_requests_are_refused(server: Served, tmp_path: Path) -> None:
    """Each with the status and the words that say what to do; none names a file of the server."""
    damaged = tmp_path / "damaged\x1b[31m.mp4"
    damaged.write_bytes(DEMO[0].read_bytes()[:200])
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(3 * 10**6 + 1))
    video = ("video", DEMO[0])
    label = ("labels", "ball")
    long = tmp_path / "long.mp4"
    write_video(long, torch.zeros(101, 16, 16, 3, dtype=torch.uint8), fps=1)
    for route, fields, status, words in (
        ("classify", [("video", damaged), label], 422, "damaged\\x1b[31m.mp4"),
        ("classify", [("video", large), label], 413, "over the limit of 3 MB"),
        ("classify", [("video", long), label], 422, "over the limit of 100 s"),
        ("classify", [label], 400, "no video"),
        ("classify", [video], 400, "no labels"),
        ("classify", [video, ("labels", " \n")], 400, "no labels"),
        ("classify", [video, ("labels", "x" * 2001)], 400, "shorten it"),
        ("classify", [video, ("labels", "a\n" * 51)], 413, "51 labels are over the limit of 50"),
        ("classify", [video, ("labels", "a" * (MAX_FIELD_BYTES + 1))], 413, "beside the video"),
        ("classify", [video, label, ("views", "1x2")], 400, "CLIPSxCROPS"),
        ("classify", [video, label, ("views", "11x3")], 413, "over the limit of 32"),
        ("classify", [video, label, ("topk", "0")], 400, "topk"),
        ("classify", [video, label, ("topk", "1"), ("topk", "2")], 400, "topk is given 2 times"),
        ("classify", [video, video, label], 400, "several videos"),
        ("classify", [video, label, ("url", "http://127.0.0.1/")], 400, "no field 'url'"),
        ("embed", [("video", "")], 422, "video"),
    ):
        answer = server.post(f"/v1/{route}", fields)
        assert (answer.status, words in answer.document["error"]) == (status, True), (fields, answer.text)
        assert "/proc/" not in answer.text
    for path, status in (("/v1/nothing", 404), ("/v1/search", 404), ("/docs", 404), ("/v1/classify", 405)):
        assert server.get(path).status == status
    for body, headers, status in (
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"x", FORM, 400),
        (form([video])[:-9], FORM, 400),
        (form([video]), {"Content-Type": "multipart/form-data"}, 415),
    ):
        assert server.ask("POST", "/v1/classify", body, headers).status == status


@contextmanager
def held(server: Served) -> Iterator[socket.socket]:
    """A request whose body does not end, once the server has taken it."""
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(
            f"POST /v1/embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {FORM['Content-Type']}\r\n"
            f"Content-Length: 1000\r\n\r\n--{BOUNDARY}\r\n".encode()
        )
        while server.get("/readyz").status == 200:
            pass
        yield slow


def test_a_full_server_says_when_to_try_again(
    model: mote_fast.VideoClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 before the upload; one who hangs up makes room. An uploaded file has no name, so that no kill leaves it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with closing(Engine(model, Limits(requests=1))) as engine, running(engine) as server:
        with held(server):
            answer = server.post("/v1/classify", with_labels(DEMO[0], LABELS))
            assert (answer.status, answer.document["kind"]) == (503, "RefusedError")
            assert int(answer.headers["retry-after"]) >= 1
            assert not [path for path in tmp_path.iterdir() if path.is_file()]
            assert (server.get("/healthz").status, server.get("/readyz").status) == (200, 503)
        while server.get("/readyz").status == 503:
            pass
        assert server.post("/v1/classify", with_labels(DEMO[0], LABELS)).status == 200


def test_a_silent_upload_ends(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place is another's then."""
    monkeypatch.setattr(upload, "MAX_SILENT_SECONDS", 0.01)
    with closing(server.connect()) as connection:
        connection.putrequest("POST", "/v1/embed")
        for name, value in {**FORM, "Content-Length": "1000"}.items():
            connection.putheader(name, value)
        connection.endheaders(b"--")
        assert connection.getresponse().status == 408


def crash_or_serve(task: Any) -> Any:
    with open(task[0], "rb") as video:
        if video.read(5) == b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
    return view_frames.read_crops(task)


def test_a_crash_costs_its_request(model: mote_fast.VideoClassifier, tmp_path: Path) -> None:
    """Its decoder crashes while others are asked; it alone has no answer."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"crash")
    with closing(Engine(model, Limits(), workers=2)) as engine, running(engine) as server:
        engine._reader._pool = WorkerPool(crash_or_serve, 2, 60.0)
        with ThreadPoolExecutor(8) as clients:
            videos = [bad, *DEMO]
            found = list(clients.map(lambda video: server.post("/v1/classify", with_labels(video, LABELS)), videos))
        assert [answer.status for answer in found] == [422, *[200] * 6]
        assert "bad.mp4: decoding it twice: its process died (SIGSEGV)" in found[0].document["error"]


def test_uploads_leave_nothing(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a file with a name at any time, nor an open one after any answer."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    for video in (DEMO[0], bad):
        assert server.post("/v1/embed", [("video", video)]).status in (200, 422)
        assert os.listdir(folder) == []
    assert server.ask("POST", "/v1/embed", form([("video", DEMO[0])])[:-9], FORM).status == 400
    open_files = [os.path.realpath(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")]
    assert not [file for file in open_files if file.startswith(str(folder))]


def test_search(model: mote_fast.VideoClassifier, engine: Engine, tmp_path: Path) -> None:
    """By words and by a video, as the index answers; what is added later is found."""
    index = Index.create(tmp_path / "index", model)
    index.add_videos(model, DEMO[:4], workers=1)
    with running(engine, Offer("tiny", index=Index(tmp_path / "index"))) as server:
        for fields, hits in (
            ([("words", "a red ring"), ("topk", "3")], index.search("a red ring", model, topk=3)),
            ([("video", DEMO[1])], index.search(like=DEMO[1], clf=model)),
        ):
            found = server.post("/v1/search", fields).document["hits"]
            # The server computes with other threads, whose sums may have another order.
            assert found == [{**hit.to_dict(), "score": pytest.approx(hit.score, abs=1e-6)} for hit in hits]
        index.add_videos(model, DEMO[4:5], workers=1)
        assert len(server.post("/v1/search", [("words", "ring")]).document["hits"]) == 5
        for fields in ([], [("words", "ring"), ("video", DEMO[0])], [("words", " ")]):
            assert server.post("/v1/search", fields).status == 400
        assert server.get("/v1/info").document["index"] == {"videos": 5}


def test_metrics_and_description(engine: Engine) -> None:
    """Prometheus reads lines of a name and a number; OpenAPI names every route and its fields."""
    with running(engine, Offer("tiny", LABELS)) as server:
        assert server.post("/v1/classify", [("video", DEMO[0])]).status == 200
        lines = [line for line in server.get("/metrics").text.splitlines() if not line.startswith("#")]
        values = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
        assert values['mote_fast_requests_total{route="/v1/classify",status="200"}'] >= 1
        assert (values["mote_fast_requests_running"], values["mote_fast_requests_capacity"]) == (0, 64)
        assert values["mote_fast_model_seconds_count"] >= 1
        described = server.get("/openapi.json").document
        fields = {
            path: sorted(route["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"])
            for path, route in described["paths"].items()
            if "post" in route
        }
        assert fields == {
            "/v1/classify": ["labels", "reject", "topk", "video", "views"],
            "/v1/embed": ["video", "views"],
            "/v1/timeline": ["background", "labels", "several", "video", "window"],
        }
        assert {"/healthz", "/readyz", "/metrics", "/v1/info"} <= set(described["paths"])
        assert server.get("/v1/info").document["labels"] == LABELS


def test_timelines_are_those_of_the_library(server: Served, model: mote_fast.VideoClassifier, tmp_path: Path) -> None:
    """By each kind of background; what is malformed is refused before the video is read."""
    video = tmp_path / "long.mp4"
    frames = torch.cat([read_frames(clip, range(20)) for clip in DEMO[:2]])
    write_video(video, frames, fps=25)
    for fields, options in (
        ({}, {}),
        ({"background": "auto", "window": "1.5"}, {"background": "auto", "window": 1.5}),
        ({"background": "0.2", "several": "true"}, {"background": 0.2, "several": True}),
        ({"background": "noise\nan empty street"}, {"background": ["noise", "an empty street"]}),
        ({"background": "noise"}, {"background": ["noise"]}),
    ):
        answer = server.post("/v1/timeline", with_labels(video, LABELS, **fields))
        document = model.timeline(video, LABELS, **options).to_dict(windows=False)
        del document["video"]
        assert answer.document == {**document, "caution": model.caution}
    for fields, words in (
        ({"background": "3"}, "-2..2"),
        ({"window": "0"}, "0.1 to 600"),
        ({"window": "nan"}, "0.1 to 600"),
        ({"several": "1"}, "true or false"),
        ({"views": "1x1"}, "no field 'views'"),
    ):
        answer = server.post("/v1/timeline", with_labels(video, LABELS, **fields))
        assert (answer.status, words in answer.document["error"]) == (400, True), answer.text
    assert server.post("/v1/timeline", with_labels(video, LABELS, background="a\n" * 51)).status == 413


def test_who_may_ask(engine: Engine) -> None:
    """The token where there is one; no page of another site, and no other name of this machine."""
    with running(engine, token="secret", hosts=("127.0.0.1",)) as server:
        fields = with_labels(DEMO[0], LABELS)
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Basic secret"}, 401),
            ({"Authorization": "Bearer secret", "Host": "evil.example"}, 421),
            ({"Authorization": "Bearer secret", "Origin": "http://evil.example"}, 403),
            ({"Authorization": "Bearer secret", "Origin": "null"}, 403),
            ({"Authorization": "Bearer secret", "Origin": f"http://127.0.0.1:{server.port}"}, 200),
        ):
            assert server.post("/v1/classify", fields, **headers).status == status, headers
        assert [server.get(path).status for path in ("/", "/healthz", "/readyz", "/metrics", "/v1/info")] == [
            *[200] * 3,
            *[401] * 2,
        ]
        headers = server.get("/").headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_end_waits_for_no_long_video(model: mote_fast.VideoClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeline that runs when the engine is closed is given up at its next chunk, and its request is refused."""
    engine = Engine(model, Limits())
    timeline = model.timeline

    def closed_meanwhile(*given: Any, **options: Any) -> Any:
        ending.start()
        engine._closed.wait()
        return timeline(*given, **options)

    ending = threading.Thread(target=engine.close)
    monkeypatch.setattr(model, "timeline", closed_meanwhile)
    with running(engine) as server:
        answer = server.post("/v1/timeline", with_labels(DEMO[0], LABELS))
    assert (answer.status, answer.document["error"]) == (503, "the server ends")
    ending.join()
