"""A server in a thread of its own, and real sockets to it."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from p2pnode.interfaces.http.access import Access
from p2pnode.interfaces.http.app import make_app
from p2pnode.interfaces.http.guard import App
from p2pnode.interfaces.http.limits import HttpLimits
from p2pnode.interfaces.http.listening import listen
from p2pnode.interfaces.http.node_link import NodeLink
from p2pnode.interfaces.http.server import HttpServer
from tests.interfaces.http.fake_node import FakeNode, fake_node


class Served:
    """A server that runs, and the port where."""

    def __init__(self, server: HttpServer, port: int) -> None:
        self.server = server
        self.port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def start(self) -> None:
        self._thread.start()
        assert self._is_up.wait(10)

    def begin_to_stop(self) -> None:
        assert self._loop is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.server.stop)

    def stop(self) -> None:
        """Stop, and wait for the end."""
        self.begin_to_stop()
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.server.serve(self._is_up.set)


Serving: TypeAlias = Callable[..., AbstractContextManager[Served]]


@pytest.fixture(name="serving")
def _serving() -> Serving:
    @contextmanager
    def serving(
        app: App, limits: HttpLimits | None = None, tls: ssl.SSLContext | None = None
    ) -> Iterator[Served]:
        listener = listen("127.0.0.1", 0)
        served = Served(HttpServer(app, listener, limits, tls=tls), listener.getsockname()[1])
        served.start()
        try:
            yield served
        finally:
            served.stop()

    return serving


@pytest.fixture(name="node")
def _node(tmp_path: Path) -> Iterator[FakeNode]:
    with fake_node(tmp_path / "node.sock") as node:
        yield node


@pytest.fixture(name="url")
def _url(serving: Serving, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the API of a fake node."""
    monkeypatch.setattr("p2pnode.interfaces.http.embedding.is_missing", lambda name: False)
    with serving(make_app(NodeLink(node.path), Access())) as served:
        yield f"http://127.0.0.1:{served.port}"
