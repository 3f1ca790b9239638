"""Commands that start and stop a node."""

from __future__ import annotations

import gc
import json
import logging
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
import trio

from p2pnode import system
from p2pnode.errors import UserError
from p2pnode.interfaces.cli.care_options import give_way
from p2pnode.interfaces.cli.http_face import HttpFace
from p2pnode.interfaces.cli.http_options import HttpOptions, http_options, listening
from p2pnode.interfaces.cli.node_options import UpOptions, json_option, node_options, state_option
from p2pnode.interfaces.cli.output import say
from p2pnode.interfaces.cli.running import run_trio
from p2pnode.interfaces.cli.settings import note_untested, settings_of, state_of
from p2pnode.net.control_door import answers
from p2pnode.net.control_lines import find_control_path
from p2pnode.net.service_manager import READY, STOPPING, service_manager

if TYPE_CHECKING:
    from p2pnode.engine.base import Engine
    from p2pnode.node.node import Node
    from p2pnode.node.settings import NodeSettings


logger = logging.getLogger(__name__)

_HINT = "p2pnode top shows it; p2pnode invite lets others in; Ctrl-C leaves the swarm"

_COLLECTED = (700, 3, 100)
"""Allocations until the young are collected, and how many times each generation is until the next
older one is. Python's own, 700, 10 and 10, stop the loop for 8 ms several times a minute."""

_GREETING = 2.0
"""Seconds that the node's lines wait for its greeting: whoever reads that may have stopped."""

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


class Life(Enum):
    """What a node's life hangs on, beside signals and ``p2pnode stop``."""

    ITS_OWN = "nothing"
    PARENT = "whoever started it: it stops when standard input closes"
    STARTER = "whoever started it, until it is up"


def face_options(command: CommandT) -> CommandT:
    """Add what says whether an HTTP API stands beside the node, and who may ask there."""
    command = http_options(command)
    return click.option(
        "--http",
        metavar="[HOST:]PORT",
        help="Serve the HTTP API there, too, as p2pnode serve does; without a host, for this "
        "machine alone.",
    )(command)


def background_options(command: CommandT) -> CommandT:
    """Add what starts a node in the background, and what tells it that it is one."""
    command = click.option("--detached", is_flag=True, hidden=True)(command)
    return click.option(
        "--detach", "-d", is_flag=True, help="Return once it is up, and leave it running."
    )(command)


@click.command(
    epilog="Examples:\n\n  p2pnode up\n\n  p2pnode up --layers 0:15 --name kitchen\n\n"
    "  p2pnode up --peer 192.168.1.20:4747 --max-layers 10\n\n  p2pnode up --detach --http 8080"
)
@node_options
@face_options
@json_option
@background_options
@click.option("--verbose", "-v", is_flag=True, help="Log what happens to standard error.")
@click.option("--with-parent", is_flag=True, hidden=True, help="Stop when standard input closes.")
def up(
    as_json: bool,
    verbose: bool,
    with_parent: bool,
    detach: bool,
    detached: bool,
    http: str | None,
    **chosen: Any,
) -> None:
    """Start a node: join the swarm, hold some layers, and serve until Ctrl-C."""
    if detach and not detached:
        _detach("up")
    life = Life.STARTER if detached else Life.PARENT if with_parent else Life.ITS_OWN
    face = _face(http, HttpOptions.taken_from(chosen), chosen["state"])
    given = UpOptions(**chosen)
    give_way(given.nice)
    _run(settings_of(given), as_json, verbose, life, face)


@click.command(
    epilog="Examples:\n\n  p2pnode join p2p1-abcd...   (the code that 'p2pnode invite' printed)"
    "\n\n  p2pnode join                (asks for it)"
    "\n\n  ssh kitchen p2pnode invite | p2pnode join -"
)
@click.argument("code", nargs=-1)
@node_options
@face_options
@json_option
@background_options
@click.option("--verbose", "-v", is_flag=True, help="Log what happens to standard error.")
def join(
    code: tuple[str, ...],
    as_json: bool,
    verbose: bool,
    detach: bool,
    detached: bool,
    http: str | None,
    **chosen: Any,
) -> None:
    """Join the swarm of an invite CODE, and start a node in it.

    The code is a secret. For - it is read from standard input, without it you are asked for it;
    one given here leaves the process's arguments at once, though not your shell's history.
    """
    from p2pnode.interfaces.cli.invite_code import read_code
    from p2pnode.interfaces.joining import change_swarm
    from p2pnode.net.addresses import format_address
    from p2pnode.node.invite import decode_invite, encode_invite

    invite = decode_invite(read_code(code))
    if detach and not detached:
        _detach("join", encode_invite(invite))
    face = _face(http, HttpOptions.taken_from(chosen), chosen["state"])
    given = UpOptions(**chosen)
    give_way(given.nice)
    peers = (*given.peer, *(format_address(address) for address in invite.addresses))
    settings = settings_of(replace(given, peer=peers))
    change_swarm(settings, invite.secret)
    _run(settings, as_json, verbose, Life.STARTER if detached else Life.ITS_OWN, face)


@dataclass(frozen=True, slots=True)
class _Face:
    """The HTTP API to stand beside a node: where it listens, and with which options."""

    listener: socket.socket
    url: str
    reaching: tuple[str, ...]
    words: tuple[str, ...]


def _face(where: str | None, options: HttpOptions, state: Path | None) -> _Face | None:
    """Take the API's address before the node starts: what is wrong with it is said at once.

    Raises:
        UserError: It cannot be had.
    """
    if where is None:
        return None
    if answers(find_control_path(state_of(state))):  # it may be what has the API's port
        raise UserError(
            f"a node of yours runs on {state_of(state)} already",
            hint="p2pnode top shows it, p2pnode stop ends it, p2pnode serve puts an API beside it; "
            "for one more node: --state DIR --port 0, and another port after --http",
        )
    listener = listening(where, options)
    words = (f"--state={state_of(state).absolute()}", *options.as_words())
    return _Face(listener, options.url(listener), tuple(options.reaching(listener)), words)


def _detach(command: str, code: str = "") -> NoReturn:
    """End as the node does that is begun in the background; it reads ``code``, as by ``join -``."""
    from p2pnode.interfaces.cli.detached import start_detached
    from p2pnode.interfaces.cli.own_command import given_options

    words = ["-", *given_options()] if code else given_options()
    said = f"{code}\n" if code else ""
    click.get_current_context().exit(start_detached(command, words, said))


@click.command(epilog="Examples:\n\n  p2pnode stop\n\n  p2pnode stop --now")
@state_option
@click.option("--now", "at_once", is_flag=True, help="Do not wait for answers of other nodes.")
def stop(state: Path | None, at_once: bool) -> None:
    """Stop the node running on this machine, after the answers it computes for others."""
    from p2pnode.interfaces.cli.stopping import stop_node

    say(f"{stop_node(state, at_once=at_once)} has ended")


def _run(
    settings: NodeSettings,
    as_json: bool,
    verbose: bool,
    life: Life = Life.ITS_OWN,
    face: _Face | None = None,
) -> None:
    from p2pnode.interfaces.cli.console_log import logging_to_console
    from p2pnode.interfaces.cli.detached import begin_detached
    from p2pnode.node.log_file import log_path

    if life is Life.STARTER:
        begin_detached()
    if not as_json:
        for one in settings.models:
            note_untested(one.path)
    with logging_to_console(log_path(settings.state), verbose=verbose, quiet=as_json) as console:
        run_trio(_serve, settings, as_json, life, console.greeted, face)


async def _serve(
    settings: NodeSettings,
    as_json: bool,
    life: Life,
    greeted: Callable[[], None],
    face: _Face | None,
) -> None:
    from p2pnode.node.fittings import Fittings
    from p2pnode.node.node import Node

    node, starting = Node(settings, Fittings(engine=_settled)), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, node, nursery.cancel_scope)
        if life is not Life.ITS_OWN:
            nursery.start_soon(_stop_with_parent, node, nursery.cancel_scope, starting)
        await nursery.start(_run_node, node, nursery.cancel_scope)
        _spare_what_stays()
        nursery.start_soon(_tell_service_manager, node)
        if face is not None:
            nursery.start_soon(HttpFace(face.listener, face.words).run)
        # In a thread: a terminal that is stopped, by Ctrl-S, would stop the loop too.
        lines = _greeting(node, as_json, face)
        hints = [] if as_json else _hints(node, life)
        with trio.move_on_after(_GREETING):
            await trio.to_thread.run_sync(_greet, lines, hints, abandon_on_cancel=True)
        if life is Life.STARTER:
            _leave_starter(node, starting)
        greeted()
    if not node.is_up:
        raise KeyboardInterrupt  # it was ended while it started


def _settled(engine: Engine) -> Engine:
    """Return ``engine``, once what came with it is out of the garbage collector's way."""
    _spare_what_stays()
    return engine


def _spare_what_stays() -> None:
    """Keep what is there now out of the garbage collector's way.

    Programs and engine stay as long as the process. To pass over them takes the collector 100 ms
    (measured), and the loop waits for it in whichever thread it runs. What comes later is passed
    over in smaller and fewer parts: 2 ms for the young, 50 for what sixteen answers hold.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECTED)


def _leave_starter(node: Node, starting: trio.CancelScope) -> None:
    from p2pnode.interfaces.cli.detached import leave_starter

    starting.cancel()
    if not leave_starter():
        node.stop()  # nobody wanted it any more when it was up


async def _run_node(
    node: Node,
    done: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    await node.run(task_status=task_status)
    done.cancel()


async def _tell_service_manager(node: Node) -> None:
    """Say to whatever started us as a service that the node is up, and that it stops."""
    manager = service_manager()
    manager.tell(READY, f"STATUS={node.settings.config.name} is up")
    await node.wait_stopping()
    manager.tell(STOPPING, "STATUS=leaving the swarm")


async def _stop_on_signal(node: Node, scope: trio.CancelScope) -> None:
    """The first Ctrl-C leaves the swarm properly; the second does not wait for it.

    Before the node is up there is nothing to leave.
    """
    asked = [signal.SIGINT, signal.SIGTERM]
    # One that is ignored is nohup's: it wants the node to live on.
    asked += [one for one in system.HANG_UP if signal.getsignal(one) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*asked) as signals:
        async for _ in signals:
            if node.stopping or not node.is_up:
                scope.cancel()
                return
            node.stop()


async def _stop_with_parent(
    node: Node, scope: trio.CancelScope, watching: trio.CancelScope
) -> None:
    """Whoever started us holds the other end of our standard input, or has ended.

    Before the node is up there is nothing to leave.
    """
    with watching:
        if sys.platform != "win32":
            async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
                while await stdin.receive_some():
                    pass
        else:
            await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)
    if watching.cancelled_caught:
        return
    if node.is_up:
        node.stop()
    else:
        scope.cancel()


def _greeting(node: Node, as_json: bool, face: _Face | None) -> list[str]:
    """Return what to say on standard output: where the node listens."""
    from p2pnode.node.log_file import log_path

    picture = node.snapshot()
    if not as_json:
        where = ", ".join(picture.listening)
        said = [f"{picture.name} ({picture.node_id[:8]}) listens on {where}"]
        return said if face is None else [*said, f"HTTP API: {face.url}", *face.reaching]
    facts = {
        "node_id": picture.node_id,
        "name": picture.name,
        "listening": list(picture.listening),
        "swarm_tag": picture.swarm_tag,
        "state": str(node.settings.state),
        "log": str(log_path(node.settings.state)),
        "pid": picture.pid,
        **({} if face is None else {"http": face.url}),
    }
    return [json.dumps(facts, ensure_ascii=False)]


def _hints(node: Node, life: Life) -> list[str]:
    """Return what to say on standard error below that: how to see it, and how to end it."""
    if life is not Life.STARTER:
        return [_HINT]
    from p2pnode.node.log_file import log_path

    state = node.settings.state
    own = f" --state {shlex.quote(str(state))}" if state != state_of(None) else ""
    return [
        f"it runs in the background as process {os.getpid()}, and logs to {log_path(state)}",
        f"p2pnode top{own} shows it; p2pnode stop{own} ends it",
    ]


def _greet(lines: list[str], hints: list[str]) -> None:
    """Say them; the node lives on where nobody can hear that."""
    from p2pnode.interfaces.cli.console_log import STDERR, STDOUT, write_line

    for line in lines:
        if trouble := write_line(STDOUT, line):
            logger.info("standard output cannot be written: %s", trouble)
    for hint in hints:
        write_line(STDERR, hint)
