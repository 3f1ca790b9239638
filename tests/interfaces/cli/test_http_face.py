"""The process of the HTTP API beside a node."""

import pytest
import trio
import trio.testing

from p2pnode.interfaces.cli.http_face import HttpFace
from p2pnode.interfaces.http.listening import listen


async def test_a_process_that_cannot_be_started_is_tried_again_and_ends_no_node(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def no_memory(*_: object, **__: object) -> trio.Process:
        raise OSError("out of memory")

    monkeypatch.setattr(trio.lowlevel, "open_process", no_memory)
    face = HttpFace(listen("127.0.0.1", 0), ())

    with trio.move_on_after(10):
        await face.run()

    assert face.restarts == 4  # at once, and after 1, 3 and 7 seconds
    assert "the HTTP API's process cannot be started: out of memory" in caplog.text
