"""What the server answers, as OpenAPI describes it, and the status of each error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import Response

from mote_fast.errors import ConfigError, LabelError, MoteError, VideoError
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.text import visible
from mote_fast.serve.limits import RefusedError


class Label(BaseModel):
    """A ranked label."""

    label: str
    index: int = Field(description="position of the label in the request")
    score: float = Field(description="probability, 0 to 1")


class Ranked(BaseModel):
    """Labels of a video."""

    predictions: list[Label] = Field(description="best first; none if the video is rejected")
    replaced_frames: int = Field(description="frames that could not be decoded; their neighbors stand in for them")
    caution: str | None = Field(description="why the ranking means nothing; null if the model is trained for it")


class Embedded(BaseModel):
    """The embedding of a video."""

    embedding: list[float] = Field(description="of unit length")
    replaced_frames: int
    caution: str | None


class Span(BaseModel):
    """A time in a video, and its label."""

    start: float = Field(description="seconds of presentation time, 0 at the first frame")
    end: float
    label: str
    index: int
    score: float


class Spans(BaseModel):
    """When which label fits a video."""

    segments: list[Span]
    duration: float = Field(description="of the video, seconds")
    labels: list[str]
    threshold: float | None = Field(description="times of a smaller level have no label; null if every time has one")
    rejection: str = Field(description="how the threshold was found")
    fps: float
    window: float
    hop: float
    replaced_frames: int
    caution: str | None


class Found(BaseModel):
    """A video of the index."""

    id: str
    path: str | None
    score: float = Field(description="cosine")
    start: float | None
    end: float | None


class Hits(BaseModel):
    """Videos of the index that are like the query."""

    hits: list[Found] = Field(description="best first")


class Problem(BaseModel):
    """Why there is no answer."""

    error: str
    kind: str = Field(description="name of the error in Python")


def json_answer(document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer of JSON."""
    return Response(to_json(document), status, headers, "application/json")


def error_answer(error: MoteError, name: str | None = None) -> Response:
    """Return the answer for an error.

    Args:
        error: its message may name the server's own file.
        name: what the sender calls the video.
    """
    headers = error.headers if isinstance(error, RefusedError) else None
    return json_answer({"error": _message(error, name), "kind": type(error).__name__}, _status(error), headers)


def _message(error: MoteError, name: str | None) -> str:
    text = f"{name or 'the video'}: {error.reason}" if isinstance(error, VideoError) else str(error)
    if isinstance(error, VideoError):
        text = text.replace(error.path, name or "the video")
    return visible(text)


def _status(error: MoteError) -> int:
    if isinstance(error, RefusedError):
        return error.status
    if isinstance(error, VideoError):
        return 422
    return 400 if isinstance(error, ConfigError | LabelError) else 500
