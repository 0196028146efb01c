"""What one request may ask of the server, and how many requests it takes on."""

from __future__ import annotations

from dataclasses import dataclass

from mote_fast.errors import MoteError

# Defaults of ``Limits``.
MAX_UPLOAD_MEGABYTES = 200
MAX_VIDEO_SECONDS = 600
MAX_LABELS = 1000
MAX_REQUESTS = 64

# Bytes of a request beside its video: a thousand long class names.
MAX_FIELD_BYTES = 2**20
# Views of a video, clips times crops; the paper's most are 12.
MAX_VIEWS = 32
# Seconds for an upload as a whole, and between two parts of it.
MAX_UPLOAD_SECONDS = 600
MAX_SILENT_SECONDS = 20
# Seconds for the timeline of one video.
MAX_TIMELINE_SECONDS = 600
# Open connections.
MAX_CONNECTIONS = 512


@dataclass(frozen=True)
class Limits:
    """Limits that who starts the server chooses.

    Attributes:
        upload_bytes: of a video.
        video_seconds: that a video may last.
        labels: of a request.
        decode_seconds: for decoding one video.
        requests: that are uploaded, wait or run at a time; more are refused with status 503.
    """

    upload_bytes: int = MAX_UPLOAD_MEGABYTES * 10**6
    video_seconds: float = MAX_VIDEO_SECONDS
    labels: int = MAX_LABELS
    decode_seconds: float = 60.0
    requests: int = MAX_REQUESTS


class RefusedError(MoteError):
    """A request that the server does not answer; ``status`` is HTTP's, and ``headers`` go with it."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
