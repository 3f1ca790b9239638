"""A node of one's own for as long as a command lasts, where none is running."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.output import note
from p2pnode.interfaces.cli.settings import UpOptions, settings_of, state_of
from p2pnode.net.control_client import ControlClient
from p2pnode.net.control_lines import find_control_path

if TYPE_CHECKING:
    from pathlib import Path

    from p2pnode.node.node import NodeSettings

_STOPPING = 10.0  # seconds for leaving the swarm; then the process ends anyway


@contextmanager
def some_node(options: UpOptions, *, quiet: bool) -> Iterator[ControlClient]:
    """Yield a client of the running node, or of one started for the occasion.

    Raises:
        UserError: Neither is possible.
    """
    state = state_of(options.state)
    try:
        client = ControlClient(find_control_path(state), timeout=None)
    except UserError:
        client = None
    if client is not None:
        with client:
            yield client
        return
    settings = settings_of(options)
    if not quiet:
        note("no node is running here: starting one for this command")
    with _running(settings), ControlClient(find_control_path(state), timeout=None) as client:
        yield client


@contextmanager
def _running(settings: NodeSettings) -> Iterator[None]:
    """Run a node in a thread of its own; a face talks to it as to any other."""
    ready, problems = threading.Event(), list[BaseException]()
    thread = threading.Thread(
        target=_run, args=(settings, ready, problems), name="node", daemon=True
    )
    thread.start()
    ready.wait()
    if problems:
        raise problems[0]
    try:
        yield
    finally:
        _stop(settings.state)
        thread.join(_STOPPING)


def _run(settings: NodeSettings, ready: threading.Event, problems: list[BaseException]) -> None:
    import trio

    from p2pnode.interfaces.cli.running import run_trio
    from p2pnode.node.node import Node

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(Node(settings).run)
            ready.set()

    try:
        run_trio(serve)
    except BaseException as error:  # handed to the thread that waits
        problems.append(error)
    finally:
        ready.set()


def _stop(state: Path) -> None:
    try:
        with ControlClient(find_control_path(state)) as client:
            client.call("stop")
    except UserError:
        pass  # it has ended by itself
