"""The routes of the server: a request becomes a call of the engine, and its result or its error an answer."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from mote_fast.clip.texts import check_texts
from mote_fast.errors import MoteError
from mote_fast.search.index_model import check_model
from mote_fast.search.video_index import Index
from mote_fast.serve.answers import Embedded, Hits, Problem, Ranked, Spans, error_answer, json_answer
from mote_fast.serve.engine import Engine
from mote_fast.serve.fields import (
    count_in,
    flag_in,
    form_schema,
    labels_in,
    rejection_in,
    video_in,
    views_in,
    window_in,
)
from mote_fast.serve.guard import Guard
from mote_fast.serve.limits import RefusedError
from mote_fast.serve.upload import VIDEO, Form, received
from mote_fast.version import __version__

PAGE = Path(__file__).parent / "page"


class Example(NamedTuple):
    """A video that the page offers, and the labels that go with it."""

    video: Path
    labels: Sequence[str]


@dataclass(frozen=True)
class Offer:
    """What a server shows and searches beside its model.

    Attributes:
        name: of the model.
        labels: that the page begins with, and that are ranked where a request has none.
        index: that is searched; None offers no search.
        examples: videos for those who have none at hand.
    """

    name: str
    labels: Sequence[str] | None = None
    index: Index | None = None
    examples: Sequence[Example] = ()


def make_app(
    engine: Engine, offer: Offer, *, token: str | None = None, hosts: tuple[str, ...] | None = None
) -> FastAPI:
    """Make the application, for any server of ASGI.

    Args:
        engine: the model at work; closing it is the caller's.
        offer: what is offered.
        token: see ``Guard``.
        hosts: see ``Guard``.

    Raises:
        ConfigError: the index belongs to another model.
    """
    if offer.index is not None:
        check_model(engine.model, offer.index.record, offer.index.folder)
    # The pages that show the description load scripts of other hosts.
    app = FastAPI(title="mote_fast", version=__version__, docs_url=None, redoc_url=None)
    routes = _Routes(engine, offer)
    for path, route, fields, model in (
        ("/v1/classify", routes.classify, (VIDEO, "labels", "views", "topk", "reject"), Ranked),
        ("/v1/timeline", routes.timeline, (VIDEO, "labels", "background", "window", "several"), Spans),
        ("/v1/embed", routes.embed, (VIDEO, "views"), Embedded),
        *([("/v1/search", routes.search, (VIDEO, "words", "topk"), Hits)] if offer.index is not None else []),
    ):
        app.add_api_route(
            path,
            routes.taking(path, fields, route),
            methods=["POST"],
            name=path.rpartition("/")[2],
            description=route.__doc__,
            responses={200: {"model": model}, **_PROBLEMS},
            openapi_extra=form_schema(fields),
        )
    app.add_api_route("/v1/info", routes.info, methods=["GET"])
    app.add_api_route("/v1/examples/{place:int}", routes.example, methods=["GET"], include_in_schema=False)
    app.add_api_route("/healthz", routes.healthz, methods=["GET"])
    app.add_api_route("/readyz", routes.readyz, methods=["GET"])
    app.add_api_route("/metrics", routes.metrics, methods=["GET"], response_class=PlainTextResponse)
    app.add_api_route("/", _page, methods=["GET"], include_in_schema=False)
    app.mount("/page", StaticFiles(directory=PAGE))
    app.add_middleware(Guard, token=token, hosts=hosts)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _fault)
    return app


async def _page() -> Response:
    return FileResponse(PAGE / "index.html")


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return json_answer({"error": str(error.detail), "kind": "RefusedError"}, error.status_code, error.headers)


async def _fault(request: Request, error: Exception) -> Response:
    # The log has the traceback.
    return json_answer({"error": "the server failed; its log says why", "kind": type(error).__name__}, 500)


class _Routes:
    """The routes, and the requests that are on their way."""

    def __init__(self, engine: Engine, offer: Offer) -> None:
        self._engine = engine
        self._offer = offer
        self._running = 0

    def taking(
        self, path: str, fields: Collection[str], route: Callable[[Form], Awaitable[dict[str, Any]]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return a route that receives a form, if there is room for another request, and answers errors."""

        async def answer(request: Request) -> Response:
            name = None
            try:
                async with self._room(), received(request, self._engine.limits, fields) as form:
                    name = form.video_name
                    self._engine.metrics.add("bytes", form.size)
                    found = json_answer(await route(form))
            except MoteError as error:
                found = error_answer(error, name)
            except ClientDisconnect:
                # Nobody reads it; the number is that of nginx.
                found = Response(status_code=499)
            self._engine.metrics.answer(path, found.status_code)
            return found

        return answer

    async def classify(self, form: Form) -> dict[str, Any]:
        """Rank labels for a video."""
        labels = labels_in(form, self._offer.labels, self._engine.limits.labels)
        topk = count_in(form, "topk", 5)
        views = views_in(form, self._engine.model, "3x1")
        reject = rejection_in(form, "reject", self._engine.limits.labels)
        predictions, replaced = await self._engine.classify(video_in(form), labels, views, topk, reject)
        return {
            "predictions": [each.to_dict() for each in predictions],
            "replaced_frames": replaced,
            "caution": self._engine.model.caution,
        }

    async def timeline(self, form: Form) -> dict[str, Any]:
        """Say when which label fits a video."""
        limit = self._engine.limits.labels
        labels = labels_in(form, self._offer.labels, limit)
        background, window, several = rejection_in(form, "background", limit), window_in(form), flag_in(form, "several")
        found = await self._engine.timeline(video_in(form), labels, background, window, several)
        document = found.to_dict(windows=False)
        # Its path is the server's own.
        del document["video"]
        return {**document, "caution": self._engine.model.caution}

    async def embed(self, form: Form) -> dict[str, Any]:
        """Embed a video."""
        request = self._engine.request(views_in(form, self._engine.model, "1x1"))
        vector, replaced = await self._engine.embed(video_in(form), request)
        return {
            "embedding": vector.tolist(),
            "replaced_frames": replaced,
            "caution": self._engine.model.caution,
        }

    async def search(self, form: Form) -> dict[str, Any]:
        """Find the videos of the index that words describe, or that are like a video."""
        index = self._offer.index
        assert index is not None
        topk = count_in(form, "topk", 10)
        words = form.one("words", "")
        if (form.video_name is None) == (not words):
            raise RefusedError(400, "give one query: words or a video")
        if words:
            check_texts([words], "words", "query")
            query: Any = words
        else:
            own = index.record.embedding
            if own.frames != self._engine.model.frames:
                raise RefusedError(400, f"the videos of the index were embedded with frames={own.frames}; give words")
            request = self._engine.request(own.views)
            request = replace(request, pixel_aspect=own.pixel_aspect, crops_along=own.crops_along)
            query = (await self._engine.embed(video_in(form), request))[0].cpu()
        model = self._engine.model if words else None
        index_hits = await self._engine.compute(lambda: _search(index, query, model, topk))
        return {"hits": [hit.to_dict() for hit in index_hits]}

    def info(self) -> Response:
        """Say what the server offers, and its limits."""
        index = self._offer.index
        return json_answer(
            {
                "model": self._offer.name,
                "version": __version__,
                "caution": self._engine.model.caution,
                "image_tower": self._engine.model.image_tower,
                "labels": None if self._offer.labels is None else list(self._offer.labels),
                "examples": [
                    {"name": each.video.name, "url": f"/v1/examples/{at}", "labels": list(each.labels)}
                    for at, each in enumerate(self._offer.examples)
                ],
                "index": None if index is None else {"videos": len(index)},
                "limits": asdict(self._engine.limits),
            }
        )

    def example(self, place: int) -> Response:
        """Return a video of the examples."""
        if not 0 <= place < len(self._offer.examples):
            return error_answer(RefusedError(404, "there is no such example"))
        return FileResponse(self._offer.examples[place].video)

    def healthz(self) -> Response:
        """Say that the server runs."""
        return json_answer({"status": "ok"})

    def readyz(self) -> Response:
        """Say whether the server takes a video: 503 while it is full."""
        room = self._running < self._engine.limits.requests
        ready = room and self._engine.ready
        return json_answer({"status": "ready" if ready else "full" if not room else "stopped"}, 200 if ready else 503)

    def metrics(self) -> Response:
        """Return counts and times in the text format of Prometheus."""
        text = self._engine.metrics.text(self._running, self._engine.limits.requests)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    @asynccontextmanager
    async def _room(self) -> AsyncIterator[None]:
        """Take the place of a request.

        Raises:
            RefusedError: there is none.
        """
        metrics = self._engine.metrics
        if self._running >= self._engine.limits.requests:
            wait = str(max(1, math.ceil(metrics.mean_seconds("request"))))
            raise RefusedError(503, "the server has as many requests as it takes; try again", {"Retry-After": wait})
        self._running += 1
        started = time.perf_counter()
        try:
            yield
        finally:
            self._running -= 1
            metrics.time("request", time.perf_counter() - started)


def _search(index: Index, query: Any, model: Any, topk: int) -> list[Any]:
    index.refresh()
    return index.search(query, model, topk=topk)


_REASONS = {
    400: "the request is malformed",
    401: "the token is missing or wrong",
    413: "the video, or another field, is too large",
    415: "the body is no form",
    422: "the video cannot be read",
    500: "the model fails",
    503: "the server is full; Retry-After says when to try again",
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": reason} for status, reason in _REASONS.items()
}
