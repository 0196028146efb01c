"""Who may ask: the host that a request names, the page that it comes from, and the token; and headers of every answer.

A server without a token on the loopback trusts the user's own programs, not the web pages that the user visits. Such a
page may send requests to 127.0.0.1, and may give 127.0.0.1 a name of its own to read the answers (DNS rebinding).
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mote_fast.runtime.json_text import to_json

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Paths that answer without the token: the page, which asks for it, and what a supervisor looks at.
_OPEN = ("/", "/openapi.json", "/healthz", "/readyz")

# The page loads its own script and style, plays videos of its own making, and nothing else.
_CONTENT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _CONTENT,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class Guard:
    """Middleware that refuses requests, and adds the headers of security to all answers.

    Args:
        app: what it guards.
        token: that requests must bear, ``Authorization: Bearer TOKEN``; None asks for none.
        hosts: names that requests may call this server by; None allows any.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: tuple[str, ...] | None) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        refusal = self._refuse(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refuse(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts is not None and urlsplit(f"//{host}").hostname not in self._hosts:
            return _answer(421, f"this server is called {' or '.join(self._hosts)}")
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc != host:
            return _answer(403, "requests of other sites' pages are refused")
        path = scope["path"]
        if self._token is None or path in _OPEN or path.startswith("/page/"):
            return None
        scheme, _, given = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), self._token.encode()):
            return None
        return _answer(401, "give the server's token: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})


def _answer(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json({"error": message, "kind": "RefusedError"}), status, headers, "application/json")
