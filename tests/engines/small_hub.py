"""A hub of one repository on this machine, as the library huggingface_hub asks it."""

import json
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


class SmallHub:
    """Answers as the hub does for one repository, ``owner/tiny``, whose files lie in a folder.

    Attributes:
        folder: Where they lie.
        asked: The files whose bodies were asked for.
        revisions: Of which the list of files was asked for.
        status, error: What every answer is, if not 200.
        lies: Other bytes than the folder has, by name.
        cuts: After how many bytes the next answer of a file ends, by name.
        from_where: Where the ranges began that were asked for.
        holds: Set, to end an answer that was cut; until then it only stops.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.revisions: list[str] = []
        self.status = 200
        self.error = ""
        self.lies: dict[str, bytes] = {}
        self.cuts: dict[str, int] = {}
        self.from_where: list[int] = []
        self.holds: Event | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def listing(self) -> bytes:
        files = []
        for one in sorted(self.folder.iterdir()):
            data = one.read_bytes()
            entry: dict[str, object] = {"rfilename": one.name, "size": len(data), "blobId": "b"}
            if one.suffix == ".safetensors":
                digest = sha256(data).hexdigest()
                entry["lfs"] = {"size": len(data), "sha256": digest, "pointerSize": 130}
            files.append(entry)
        said = {"id": "owner/tiny", "modelId": "owner/tiny", "sha": COMMIT, "siblings": files}
        return json.dumps(said).encode()


def _handler_of(hub: SmallHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            name = path.rpartition("/")[2]
            headers, body, status = {}, b"", hub.status
            if hub.status != 200:
                headers["X-Error-Code"] = hub.error
            elif path.startswith("/api/models/owner/tiny"):
                hub.revisions.append(name)
                body = hub.listing()
            elif not (hub.folder / name).is_file():
                status = 404
            else:
                stored = (hub.folder / name).read_bytes()
                headers = {
                    "ETag": f'"{sha256(stored).hexdigest()}"', "X-Repo-Commit": COMMIT,
                    "Accept-Ranges": "bytes",
                }  # fmt: skip
                body = hub.lies.get(name, stored)
                if with_body:
                    hub.asked.append(name)
            start = 0
            if (asked := self.headers.get("Range")) and status == 200:
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                body, status = body[start:], 206
                hub.from_where.append(start)
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body and name in hub.cuts:
                self.wfile.write(body[: hub.cuts.pop(name)])
                self.wfile.flush()
                if hub.holds is not None:
                    hub.holds.wait(60)
                self.close_connection = True
            elif with_body:
                self.wfile.write(body)

    return Handler
