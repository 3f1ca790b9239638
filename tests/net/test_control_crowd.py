"""Many at a node's control socket at once: those for whom there is no room yet are let in later."""

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pnode.net import control_door
from p2pnode.net.control import ControlClient, Emit, serve_control
from p2pnode.net.control_door import connect, try_connect
from p2pnode.net.control_stream import ControlStream, NodeGoneError

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="a loopback port lets the system do the waiting"
)

CROWD = 60


async def _double(params: dict[str, Any], emit: Emit) -> object:
    await trio.lowlevel.checkpoint()
    return 2 * params["n"]


async def test_each_of_a_crowd_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_door, "_MOST_WAITING", 1)
    path = tmp_path / "node.sock"

    async def one(number: int) -> object:
        async with ControlStream.open(path) as stream:
            return await stream.call("double", {"n": number})

    async def all_at_once() -> list[object]:
        return await asyncio.gather(*map(one, range(CROWD)))

    def one_by_one(number: int) -> object:
        with ControlClient(path, timeout=20) as client:
            return client.call("double", {"n": number})

    def in_threads() -> list[object]:
        said: list[object] = []
        threads = [
            threading.Thread(target=lambda n=number: said.append(one_by_one(n)))
            for number in range(CROWD)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return said

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, {"double": _double})
        streams = await trio.to_thread.run_sync(lambda: asyncio.run(all_at_once()))
        clients = await trio.to_thread.run_sync(in_threads)
        nursery.cancel_scope.cancel()
    doubled = [2 * number for number in range(CROWD)]
    assert streams == doubled
    assert sorted(map(int, map(str, clients))) == doubled


def test_nobody_waits_for_ever_at_a_node_that_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pnode.net.control_stream._PATIENCE", 0.1)
    path = tmp_path / "node.sock"
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(path))
        stuck.listen(0)
        waiting = []
        while (made := try_connect(path)) is not None:
            waiting.append(made)
        with pytest.raises(TimeoutError):
            connect(path, 0.05)

        async def ask() -> None:
            async with ControlStream.open(path):
                pass

        with pytest.raises(NodeGoneError):
            asyncio.run(ask())
        for made in waiting:
            made.close()
