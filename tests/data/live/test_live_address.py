from __future__ import annotations

from pathlib import Path

import pytest

from mote_fast.data.live.live_address import live_address
from mote_fast.errors import ConfigError


def test_cameras_and_streams_are_told_from_files() -> None:
    """A path is no live source, whatever is in it; a camera is one by its number or its device."""
    for path in ("video.mp4", "a:b.mp4", Path("x/dev/video0"), "C://video.mp4", "rtsp:/video"):
        assert live_address(path) is None
    for camera in (2, "/dev/video2"):
        found = live_address(camera)
        assert found is not None
        assert (found.url, found.format) == ("/dev/video2", "v4l2")


def test_a_password_is_in_no_message() -> None:
    """Messages reach logs, and the address of a camera holds its password."""
    found = live_address("rtsp://me:secret@192.0.2.1:554/door?x=1")
    assert found is not None
    assert found.label == "rtsp://192.0.2.1:554/door?x=1"
    assert "secret" not in repr(found)
    with pytest.raises(ConfigError) as caught:
        live_address("gopher://me:secret@192.0.2.1/door")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("source", ["file:///etc/passwd", "concat://a|b", "rtsp:///door", "http://[::1/x", -1, True])
def test_other_sources_are_refused(source: str | int) -> None:
    """Only what is listed is opened; FFmpeg knows protocols that read files and run scripts."""
    with pytest.raises(ConfigError):
        live_address(source)
