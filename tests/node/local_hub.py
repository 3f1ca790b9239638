"""A model hub on loopback that misbehaves as it is told, and keeps what it was asked."""

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from p2pnode.node import model_cache
from p2pnode.testing.tiny_gguf import write_tiny_gguf

Behaviour: TypeAlias = Callable[["Request"], bool]
"""Answers a request in its own way and says so; or leaves it to the hub."""


REPO = "some/Tiny-GGUF"
FILE = "tiny-Q4_K_M.gguf"


class Request(BaseHTTPRequestHandler):
    """One request; ``hub`` is whose."""

    server_version = "hub"
    protocol_version = "HTTP/1.1"
    server: "Hub"

    @property
    def hub(self) -> "Hub":
        return self.server

    @property
    def where(self) -> str:
        return unquote(urlsplit(self.path).path)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        with self.hub.turn:
            self.hub.asked.append((self.path, dict(self.headers)))
            behaviours = self.hub.behaviours
            if behaviours and behaviours[0](self):
                behaviours.pop(0)
                return
        self.answer()

    def answer(self) -> None:
        """Answer as a good hub does."""
        words = self.where.strip("/").split("/")
        if words[:2] == ["api", "models"] and words[4:5] == ["tree"]:
            self.listing("/".join(words[2:4]))
        elif words[2:3] == ["resolve"]:
            self.resolved("/".join(words[:2]), "/".join(words[4:]))
        elif words[0] == "cdn" and words[1] in self.hub.blobs:
            self.file(self.hub.blobs[words[1]])
        else:
            self.send(404, b"not found")

    def listing(self, repo: str) -> None:
        if repo not in self.hub.repos:
            self.send(404, b"{}")
            return
        rows: list[dict[str, Any]] = [{"type": "directory", "path": "folder", "oid": "x"}]
        for path, content in self.hub.repos[repo].items():
            row: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": "git"}
            if path.endswith(".gguf"):
                row["lfs"] = {"oid": sha(content), "size": len(content)}
            rows.append(row)
        self.send(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})

    def resolved(self, repo: str, path: str) -> None:
        content = self.hub.repos.get(repo, {}).get(path)
        if content is None:
            self.send(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
            return
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{sha(content)}"'}
        self.send(302, b"", {"Location": f"/cdn/{sha(content)}?signed=1", **linked})

    def file(self, content: bytes) -> None:
        """Send a file, or the range asked for."""
        headers = {"ETag": f'"{sha(content)[:16]}"'}
        start = self.range_start()
        if start is None or self.headers.get("If-Range", headers["ETag"]) != headers["ETag"]:
            self.send(200, content, headers)
        elif start >= len(content):
            self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        else:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send(206, content[start:], headers)

    def range_start(self) -> int | None:
        asked = self.headers.get("Range", "")
        return int(asked.removeprefix("bytes=").removesuffix("-")) if asked else None

    def send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, *, cut: int = -1
    ) -> None:
        """Answer; with ``cut``, only so many bytes of the body, and then hang up."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(body[:cut] if cut >= 0 else body)


class Hub(ThreadingHTTPServer):
    """Repositories of files in memory.

    Attributes:
        repos: Files by repository and path.
        behaviours: What the next requests meet, in order; each is gone once it has answered.
        asked: Path and headers of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.behaviours: list[Behaviour] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.turn = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def blobs(self) -> dict[str, bytes]:
        return {sha(one): one for files in self.repos.values() for one in files.values()}

    def asked_for(self, part: str) -> list[dict[str, str]]:
        """Return the headers of the requests whose path has this in it."""
        return [headers for path, headers in self.asked if part in path]


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=lambda: hub.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def on(part: str, do: Callable[[Request], None]) -> Behaviour:
    """Do something to the next request whose path has ``part`` in it."""

    def behave(request: Request) -> bool:
        if part not in request.path:
            return False
        do(request)
        return True

    return behave


def cutting(content: bytes, at: int) -> Callable[[Request], None]:
    """Hang up after ``at`` bytes of what was asked for."""

    def do(request: Request) -> None:
        start = request.range_start() or 0
        rest = content[start:]
        status = 206 if start else 200
        headers = {"ETag": f'"{sha(content)[:16]}"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        request.send(status, rest, headers, cut=at)

    return do


def packed(content: bytes) -> Callable[[Request], None]:
    return lambda request: request.send(200, gzip.compress(content), {"Content-Encoding": "gzip"})


def saying(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> Callable[[Request], None]:
    return lambda request: request.send(status, body, headers)


def tiny(tmp_path: Path, seed: int = 0) -> bytes:
    path = tmp_path / "made.gguf"
    write_tiny_gguf(path, n_layers=2, seed=seed)
    return path.read_bytes()


def content(hub: Hub) -> bytes:
    return hub.repos[REPO][FILE]


class Always(list[Behaviour]):
    """Behaviours that stay."""

    def pop(self, _: object = None) -> Behaviour:
        return self[0]


def pull(what: str = f"hf:{REPO}", **more: Any) -> Path:
    return model_cache.pull(what, **more)


def parts(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.glob("cache/models/.parts/*"))
