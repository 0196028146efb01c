"""A hub on this machine: as much of the hub as its own client uses to read, create and write repositories."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from huggingface_hub import constants

LARGE = 1000


@dataclass
class Repository:
    """Commits by their hash, and the branches that lead to them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Replace all files of a branch; return the hash."""
        digest = hashlib.sha1(repr((sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[digest] = files
        self.branches[branch] = digest
        return digest

    def at(self, revision: str) -> str | None:
        found = self.branches.get(revision, revision)
        return found if found in self.commits else None


@dataclass
class Hub:
    """What the hub holds and was asked. All of it may be changed while it runs.

    Attributes:
        repositories: by their names.
        objects: large files by their SHA-256.
        requests: method and path of each request.
        messages: of the commits.
        token: asked of everyone who writes.
        claimed: sizes that the hub states, by file name, in place of the true ones.
        status: answer everything with this status.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    token: str | None = None
    claimed: dict[str, int] = field(default_factory=dict)
    status: int | None = None
    url: str = ""


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def answer(self, body: object = b"", status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status: int, code: str) -> None:
        self.answer({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        self.hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        if self.hub.status is not None:
            self.answer({"error": "out of order"}, self.hub.status)
            return
        writes = self.command in ("POST", "PUT") and path != "/api/validate-yaml"
        known = self.hub.token is None or self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if writes and not known and "/objects/" not in path:
            self.answer({"error": "Invalid username or password."}, 401)
            return
        for pattern, method in _ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match:
                method(self, *match.groups(), query=query, body=body)
                return
        self.answer(status=200 if path == "/" else 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def files_of(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and files of a revision; None after an answer that there is none."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and "Authorization" not in self.headers):
            self.refuse(404, "RepoNotFound")
            return None
        commit = repository.at(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound")
            return None
        return commit, repository.commits[commit]

    def info(self, name: str, revision: str | None, **_: Any) -> None:
        if (found := self.files_of(name, revision or "main")) is None:
            return
        sizes = {path: self.hub.claimed.get(path, len(content)) for path, content in found[1].items()}
        siblings = [{"rfilename": path, "size": size} for path, size in sizes.items()]
        repository = self.hub.repositories[name]
        gated = "auto" if repository.gated else False
        facts = {"id": name, "sha": found[0], "siblings": siblings, "private": repository.private, "gated": gated}
        self.answer({**facts, "tags": [], "downloads": 0, "likes": 0})

    def tree(self, name: str, revision: str, **_: Any) -> None:
        if (found := self.files_of(name, revision)) is not None:
            self.answer(
                [
                    {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for path, content in found[1].items()
                ]
            )

    def file(self, _: str, name: str, revision: str, path: str, **__: Any) -> None:
        if (found := self.files_of(name, revision)) is None:
            return
        if self.hub.repositories[name].gated:
            self.refuse(403, "GatedRepo")
        elif path not in found[1]:
            self.refuse(404, "EntryNotFound")
        else:
            content = found[1][path]
            self.answer(content, ETag=f'"{_etag(content)}"', X_Repo_Commit=found[0], Accept_Ranges="none")

    def create(self, body: bytes, **_: Any) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        known = name in self.hub.repositories
        if not known:
            self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
            self.hub.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self.answer({"url": f"{self.hub.url}/{name}", "id": name}, 409 if known else 200)

    def branch(self, name: str, branch: str, **_: Any) -> None:
        repository = self.hub.repositories[name]
        known = branch in repository.branches
        repository.branches.setdefault(branch, repository.branches["main"])
        self.answer({}, 409 if known else 200)

    def preupload(self, name: str, revision: str, body: bytes, **_: Any) -> None:
        if self.files_of(name, revision) is not None:
            modes = [
                {**each, "uploadMode": "lfs" if each["size"] > LARGE else "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            self.answer({"files": modes})

    def batch(self, _: str, body: bytes, **__: Any) -> None:
        objects = []
        for each in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/objects/{each['oid']}"}}
            objects.append({**each, **({} if each["oid"] in self.hub.objects else {"actions": upload})})
        self.answer({"transfer": "basic", "objects": objects})

    def put(self, oid: str, body: bytes, **_: Any) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self.answer()

    def commit(self, name: str, revision: str, body: bytes, **_: Any) -> None:
        if (found := self.files_of(name, revision)) is None:
            return
        files = dict(found[1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise AssertionError(line["key"])
        commit = self.hub.repositories[name].commit(files, revision)
        self.answer({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit, "success": True})

    def validate(self, **_: Any) -> None:
        self.answer({"errors": [], "warnings": []})

    def log_message(self, format: str, *args: object) -> None:
        pass


_NAME = r"([^/]+/[^/]+)"
_ROUTES = (
    (rf"GET /api/models/{_NAME}(?:/revision/(.+))?", _Handler.info),
    (rf"GET /api/models/{_NAME}/tree/(.+)", _Handler.tree),
    (rf"(GET|HEAD) /{_NAME}/resolve/([^/]+)/(.+)", _Handler.file),
    (r"POST /api/repos/create", _Handler.create),
    (rf"POST /api/models/{_NAME}/branch/(.+)", _Handler.branch),
    (rf"POST /api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /objects/(\w+)", _Handler.put),
    (rf"POST /api/models/{_NAME}/commit/(.+)", _Handler.commit),
    (r"POST /api/validate-yaml", _Handler.validate),
)


@contextmanager
def serve_hub(monkeypatch: Any, cache: Any) -> Iterator[Hub]:
    """Run a hub on a free port, and lead the client to it, with a cache of its own and without the user's token."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache) + ".token")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
