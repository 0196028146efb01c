"""What a live source is, and how it is opened.

Files have a door of their own (``decoding/video_info.py``), which opens no network and no device. This one opens
nothing else than the address that it is given: no playlist, no description of a session, and no other protocol.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from mote_fast.data.decoding.formats import FORMATS
from mote_fast.errors import ConfigError, quoted

# What FFmpeg may open for an address, by its scheme: the scheme itself and what carries it.
_PROTOCOLS = {
    "http": "http,tcp",
    "https": "https,http,tls,tcp",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,rtmp,tls,tcp",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,udp,tls,tcp",
    "tcp": "tcp",
    "udp": "udp",
}

# FFmpeg's demuxers of streams beside those of files. "hls", "dash" and "sdp" name other addresses, and are not here.
_LIVE_FORMATS = f"{FORMATS},live_flv,mpjpeg"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_CAMERA = re.compile(r"/dev/video\d+")


@dataclass(frozen=True)
class LiveAddress:
    """How FFmpeg opens a live source.

    Attributes:
        url: what it opens.
        label: the same without a user's name and password, for messages.
        format: the demuxer, where the address leaves none to find.
        options: of the demuxer.
    """

    url: str = field(repr=False)
    label: str
    format: str | None
    options: dict[str, str]


def live_address(source: str | os.PathLike[str] | int) -> LiveAddress | None:
    """Return how a source is opened; None if it is the path of a file.

    Args:
        source: the number of a camera; "/dev/video0", a camera; "rtsp://...", "http://..." or another address; or a
            path.

    Raises:
        ConfigError: the number is below 0, or the address has another scheme or names no host.
    """
    if isinstance(source, int):
        if isinstance(source, bool) or source < 0:
            raise ConfigError(f"the number of a camera must be at least 0, got {source}")
        return _camera(f"/dev/video{source}")
    name = os.fsdecode(source)
    if _CAMERA.fullmatch(name):
        return _camera(name)
    match = _SCHEME.match(name)
    if match is None:
        return None
    scheme = match[1].lower()
    try:
        parts = urlsplit(name)
        host = parts.hostname
    except ValueError as error:
        raise ConfigError(f"not an address of a stream ({error}): {quoted(name)}") from None
    label = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if scheme not in _PROTOCOLS:
        raise ConfigError(f"{label}: a stream begins with {', '.join(f'{each}://' for each in _PROTOCOLS)}")
    if host is None:
        raise ConfigError(f"{label}: the address names no host")
    options = {"protocol_whitelist": _PROTOCOLS[scheme]}
    if scheme in ("rtsp", "rtsps"):
        # Packets by UDP are lost, and blocked by most networks.
        return LiveAddress(name, label, "rtsp", options | {"rtsp_transport": "tcp", "format_whitelist": "rtsp"})
    return LiveAddress(name, label, None, options | {"format_whitelist": _LIVE_FORMATS})


def why_not_camera(path: str) -> str | None:
    """Say why a camera cannot be opened; None if nothing speaks against it."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"no camera there ({error.strerror}); `ls /dev/video*` lists those of Linux"
    return None if stat.S_ISCHR(mode) else "not a camera"


def _camera(path: str) -> LiveAddress:
    return LiveAddress(path, path, "v4l2", {"protocol_whitelist": "file", "format_whitelist": "video4linux2,v4l2"})
