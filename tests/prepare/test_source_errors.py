"""Errors of videos name the video, whatever library or disk raised them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mote_fast.errors import ConfigError, MissingVideoError, UndecodableVideoError, VideoError
from mote_fast.prepare.journal import file_state
from mote_fast.prepare.source_errors import SourceFile, reading
from tests.prepare.conftest import write


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), ValueError("odd"), MemoryError()])
def test_unknown_errors_become_the_videos(error: Exception) -> None:
    """One odd file must not end the work on others; the reason is one line."""
    reason = rf"^v\.mp4: cannot be read \({type(error).__name__}"
    with pytest.raises(UndecodableVideoError, match=reason), reading("v.mp4"):
        raise error


@pytest.mark.parametrize("error", [ConfigError("full"), MissingVideoError("other.mp4", "gone"), KeyboardInterrupt()])
def test_known_errors_pass(error: BaseException) -> None:
    """What the library says is more exact, and Ctrl-C is no error of a video."""
    with pytest.raises(type(error)) as caught, reading("v.mp4"):
        raise error
    assert caught.value is error


def test_a_file_is_read_as_it_was_planned(tmp_path: Path) -> None:
    """The bytes of the file; or an error that names it if it is gone, has changed, or became shorter meanwhile."""
    file = write(tmp_path / "v.mp4", "content")
    state = file_state(file)
    with SourceFile(str(file), state) as video:
        assert [video.read(4), video.read(4), video.read(4), video.read()] == [b"cont", b"ent", b"", b""]
    with SourceFile(str(file), state) as video:
        os.truncate(file, 3)
        with pytest.raises(VideoError, match=r"v\.mp4: changed"):
            video.read()
    with pytest.raises(VideoError, match=r"v\.mp4: changed"):
        SourceFile(str(file), state)
    with pytest.raises(VideoError, match=r"none\.mp4: cannot be read"):
        SourceFile(str(tmp_path / "none.mp4"), state)
