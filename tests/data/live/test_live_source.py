from __future__ import annotations

import os
import signal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from mote_fast.data.live import live_source
from mote_fast.data.live.live_address import live_address
from mote_fast.data.live.live_reader import LiveRequest, LiveServer
from mote_fast.data.live.live_source import Interruption, LiveBatch, read_live
from mote_fast.data.transforms import CLIP_PREPROCESSING
from mote_fast.errors import ConfigError, UndecodableVideoError
from mote_fast.runtime.workers import WorkerPool
from tests.live_server import live_server, transport_stream
from tests.web import serve

FRAMES = 30


@pytest.fixture(scope="module")
def content() -> bytes:
    """Three seconds at ten frames a second."""
    return transport_stream(np.random.default_rng(0).integers(0, 256, (FRAMES, 64, 64, 3), np.uint8), 10)


def request_for(url: str, kept: int = 4) -> LiveRequest:
    address = live_address(url)
    assert address is not None
    return LiveRequest(address, Fraction(10), kept, CLIP_PREPROCESSING)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_stream_that_was_cut_is_opened_again(content: bytes, scheme: str) -> None:
    """However often it is tried, one interruption is one event; the clock goes on, and frames follow."""
    events: list[Interruption] = []
    ticks: list[int] = []
    with live_server(content, scheme) as server:
        for found in read_live(request_for(server.url), 60):
            if isinstance(found, Interruption):
                events.append(found)
                server.start()
            else:
                ticks += found.ticks
                # The last frames wait in the decoder for what follows.
                if server.connections == 1 and not events and ticks[-1] >= FRAMES // 2:
                    server.cut()
                if server.connections == 2:
                    break
    assert len(events) == 1
    assert ticks == sorted(set(ticks))
    assert ticks[-1] > FRAMES // 2


def test_a_reader_that_dies_is_an_interruption(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that crashes takes its process with it, and nothing else."""
    pools: list[Any] = []

    class Recorded(WorkerPool):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            pools.append(self)

    monkeypatch.setattr(live_source, "WorkerPool", Recorded)
    events: list[Interruption] = []
    with live_server(content) as server:
        for found in read_live(request_for(server.url), 60):
            if isinstance(found, Interruption):
                events.append(found)
            elif events:
                break
            else:
                os.kill(pools[0]._workers[0]._process.pid, signal.SIGKILL)
    assert len(events) == 1
    assert "SIGKILL" in events[0].reason


def test_a_silent_stream_is_an_interruption(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that stays open and sends nothing looks like a still picture, and is none."""
    monkeypatch.setattr(live_source, "SILENT_SECONDS", 0.1)
    with live_server(content) as server:
        events = [found for found in _until_the_first_event(server.url) if isinstance(found, Interruption)]
    assert "no frame for 0.1 s" in events[0].reason


def _until_the_first_event(url: str) -> list[LiveBatch | Interruption]:
    found: list[LiveBatch | Interruption] = []
    for each in read_live(request_for(url), 60):
        found.append(each)
        if isinstance(each, Interruption):
            break
    return found


def test_late_frames_are_dropped_and_counted(content: bytes) -> None:
    """Who fetches late gets the last frames, and not all those that came: what waits is bounded."""
    reader = LiveServer()
    with live_server(content, closes=True) as server:
        reader(request_for(server.url, kept=5))
        reading: Any = reader._reading
        with reading._changed:
            assert reading._changed.wait_for(lambda: reading._ended is not None, 60)
    answer = reader(None)
    assert answer is not None
    assert answer.value.ticks == list(range(FRAMES - 5, FRAMES))
    assert answer.value.dropped == FRAMES - 5
    assert len(answer.tensor) == 5
    last = reader(None)
    assert last is not None
    assert last.value.ended is not None


def test_a_source_with_an_end_is_over() -> None:
    """A file at an address ends, and is not played again; its frames come as they are shown, none is dropped."""
    content = transport_stream(np.zeros((6, 64, 64, 3), np.uint8), 10)
    with serve(content) as site:
        found = list(read_live(request_for(site.url)))
    ticks = [tick for batch in found if isinstance(batch, LiveBatch) for tick in batch.ticks]
    assert ticks == list(range(6))


def test_what_cannot_be_opened_at_first_is_an_error() -> None:
    """A wrong address is not tried for ever."""
    with live_server(b"") as server:
        server.cut()
        with pytest.raises(UndecodableVideoError, match="refused"):
            next(read_live(request_for(server.url)))


def test_a_stream_that_stays_away_is_given_up(content: bytes) -> None:
    """After the time that the caller allows, the error says why."""
    with live_server(content) as server:
        found = read_live(request_for(server.url), 0)
        assert isinstance(next(found), LiveBatch)
        server.cut()
        with pytest.raises(UndecodableVideoError):
            list(found)
    with pytest.raises(ConfigError):
        read_live(request_for("http://127.0.0.1:1/x"), -1)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "ffconcat version 1.0\nfile /etc/passwd\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 33\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    ],
    ids=["hls", "concat", "sdp", "dash"],
)
def test_playlists_are_not_followed(text: str) -> None:
    """An address is opened, and not what it names: a stranger's server could name files of this machine."""
    with serve(text.encode()) as site, pytest.raises(UndecodableVideoError, match="playlists are not followed"):
        LiveServer()(request_for(site.url))


def test_a_redirect_reaches_no_file(content: bytes, tmp_path: Any) -> None:
    """A server may send a reader elsewhere on the network, and not to this machine's files."""
    path = tmp_path / "video.ts"
    path.write_bytes(content)
    with serve(b"", status=302, location=f"file://{path}") as site, pytest.raises(UndecodableVideoError):
        LiveServer()(request_for(site.url))
