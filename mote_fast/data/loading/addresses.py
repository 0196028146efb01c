"""Videos at addresses such as s3://bucket/video.mp4, which the process that decodes them fetches."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mote_fast.errors import BackendError, ConfigError, MissingVideoError, UnreadableVideoError, one_line
from mote_fast.runtime.extras import required

# Bytes of a video that is fetched, which has to fit into the memory.
MAX_FETCHED = 1 << 30

# "https://...", "s3://..."; one letter would be a drive.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


@dataclass(frozen=True)
class Address:
    """Where fsspec finds a video.

    Raises:
        ConfigError: the text is no address, or a chain of them, which would open archives and caches.
    """

    url: str

    def __post_init__(self) -> None:
        if not is_address(self.url) or "::" in self.url:
            raise ConfigError(f"{self.url}: not one address of a file")

    @property
    def protocol(self) -> str:
        """What stands before "://"."""
        return self.url.partition("://")[0]


def is_address(name: str) -> bool:
    """Whether a name begins as an address does, with a protocol."""
    return _ADDRESS.match(name) is not None


def check_protocol(protocol: str) -> None:
    """Check that this machine has what opens addresses of a protocol.

    Raises:
        BackendError: fsspec, or the package that it needs for the protocol, is missing.
    """
    fsspec = required("fsspec", f"{protocol}://", "batch")
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        raise BackendError(f"{protocol}:// cannot be opened here ({one_line(error)})") from error


def fetch(address: Address) -> bytes:
    """Return the content of the file at an address.

    Raises:
        BackendError: fsspec is missing.
        VideoError: the file is not there, cannot be read, or has over ``MAX_FETCHED`` bytes.
    """
    fsspec = required("fsspec", address.url, "batch")
    try:
        with fsspec.open(address.url, "rb") as file:
            content = file.read(MAX_FETCHED + 1)
    except FileNotFoundError as error:
        raise MissingVideoError(address.url, "no such file; check the address") from error
    # Each protocol has a package of its own, with errors of its own.
    except Exception as error:
        raise UnreadableVideoError(address.url, f"cannot be fetched ({one_line(error)})") from error
    if len(content) > MAX_FETCHED:
        raise UnreadableVideoError(address.url, f"a file of over {MAX_FETCHED >> 20} MiB; fetch it, and give its path")
    return content
