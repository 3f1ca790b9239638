"""Commands that start and stop a node."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from p2pnode.interfaces.cli.output import say
from p2pnode.interfaces.cli.running import run_trio
from p2pnode.interfaces.cli.settings import (
    UpOptions,
    json_option,
    node_options,
    note_untested,
    settings_of,
    state_option,
)

if TYPE_CHECKING:
    from p2pnode.node.node import Node, NodeSettings


logger = logging.getLogger(__name__)

_HINT = "p2pnode top shows it; p2pnode invite lets others in; Ctrl-C leaves the swarm"

_GREETING = 2.0
"""Seconds that the node's lines wait for its greeting: whoever reads that may have stopped."""


@click.command(
    epilog="Examples:\n\n  p2pnode up\n\n  p2pnode up --layers 0:15 --name kitchen\n\n"
    "  p2pnode up --peer 192.168.1.20:4747 --max-layers 10"
)
@node_options
@json_option
@click.option("--verbose", "-v", is_flag=True, help="Log what happens to standard error.")
@click.option("--with-parent", is_flag=True, hidden=True, help="Stop when standard input closes.")
def up(as_json: bool, verbose: bool, with_parent: bool, **chosen: Any) -> None:
    """Start a node: join the swarm, hold some layers, and serve until Ctrl-C."""
    _run(settings_of(UpOptions(**chosen)), as_json, verbose, with_parent=with_parent)


@click.command(
    epilog="Examples:\n\n  p2pnode join p2p1-abcd...   (the code that 'p2pnode invite' printed)"
    "\n\n  p2pnode join                (asks for it)"
    "\n\n  ssh kitchen p2pnode invite | p2pnode join -"
)
@click.argument("code", nargs=-1)
@node_options
@json_option
@click.option("--verbose", "-v", is_flag=True, help="Log what happens to standard error.")
def join(code: tuple[str, ...], as_json: bool, verbose: bool, **chosen: Any) -> None:
    """Join the swarm of an invite CODE, and start a node in it.

    The code is a secret. For - it is read from standard input, without it you are asked for it;
    one given here leaves the process's arguments at once, though not your shell's history.
    """
    from p2pnode.interfaces.cli.invite_code import read_code
    from p2pnode.net.addresses import format_address
    from p2pnode.node.invite import decode_invite

    invite = decode_invite(read_code(code))
    given = UpOptions(**chosen)
    peers = (*given.peer, *(format_address(address) for address in invite.addresses))
    settings = settings_of(replace(given, peer=peers))
    _change_swarm(settings, invite.secret)
    _run(settings, as_json, verbose)


def _change_swarm(settings: NodeSettings, secret: bytes) -> None:
    """Belong to the swarm of ``secret`` from here on, unless this node could not start at all.

    Raises:
        UserError: The model, the port or the state cannot be used; the state is as it was.
    """
    from p2pnode.net.udp import open_udp
    from p2pnode.node.identity import StateDirectory
    from p2pnode.node.models import describe_model

    if settings.model is not None:
        describe_model(settings.model)
    state = StateDirectory(settings.state)
    with state.lock():  # first: a node that runs here has the port too
        open_udp(settings.host, settings.port).close()
        state.identity_seed()
        if state.swarm_secret() != secret:
            state.remember_peers(())  # those of another swarm
        state.set_swarm_secret(secret)


@click.command(epilog="Examples:\n\n  p2pnode stop\n\n  p2pnode stop --now")
@state_option
@click.option("--now", "at_once", is_flag=True, help="Do not wait for answers of other nodes.")
def stop(state: Path | None, at_once: bool) -> None:
    """Stop the node running on this machine, after the answers it computes for others."""
    from p2pnode.interfaces.cli.stopping import stop_node

    say(f"{stop_node(state, at_once=at_once)} has ended")


def _run(
    settings: NodeSettings, as_json: bool, verbose: bool, *, with_parent: bool = False
) -> None:
    from p2pnode.interfaces.cli.console_log import logging_to_console
    from p2pnode.node.log_file import log_path

    if not as_json:
        note_untested(settings.model)
    with logging_to_console(log_path(settings.state), verbose=verbose, quiet=as_json) as console:
        run_trio(_serve, settings, as_json, with_parent, console.greeted)


async def _serve(
    settings: NodeSettings, as_json: bool, with_parent: bool, greeted: Callable[[], None]
) -> None:
    from p2pnode.node.node import Node

    node = Node(settings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, node, nursery.cancel_scope)
        if with_parent:
            nursery.start_soon(_stop_with_parent, node, nursery.cancel_scope)
        await nursery.start(_run_node, node, nursery.cancel_scope)
        # In a thread: a terminal that is stopped, by Ctrl-S, would stop the loop too.
        lines, hints = _greeting(node, as_json), [] if as_json else [_HINT]
        with trio.move_on_after(_GREETING):
            await trio.to_thread.run_sync(_greet, lines, hints, abandon_on_cancel=True)
        greeted()
    if not node.is_up:
        raise KeyboardInterrupt  # it was ended while it started


async def _run_node(
    node: Node,
    done: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    await node.run(task_status=task_status)
    done.cancel()


async def _stop_on_signal(node: Node, scope: trio.CancelScope) -> None:
    """The first Ctrl-C leaves the swarm properly; the second does not wait for it.

    Before the node is up there is nothing to leave.
    """
    asked = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else nohup wants it to live on
        asked.append(signal.SIGHUP)
    with trio.open_signal_receiver(*asked) as signals:
        async for _ in signals:
            if node.stopping or not node.is_up:
                scope.cancel()
                return
            node.stop()


async def _stop_with_parent(node: Node, scope: trio.CancelScope) -> None:
    """Whoever started us holds the other end of our standard input, or has ended.

    Before the node is up there is nothing to leave.
    """
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        while await stdin.receive_some():
            pass
    if node.is_up:
        node.stop()
    else:
        scope.cancel()


def _greeting(node: Node, as_json: bool) -> list[str]:
    """Return what to say on standard output: where the node listens."""
    picture = node.snapshot()
    if not as_json:
        where = ", ".join(picture.listening)
        return [f"{picture.name} ({picture.node_id[:8]}) listens on {where}"]
    facts = {
        "node_id": picture.node_id,
        "name": picture.name,
        "listening": list(picture.listening),
        "swarm_tag": picture.swarm_tag,
        "state": str(node.settings.state),
    }
    return [json.dumps(facts, ensure_ascii=False)]


def _greet(lines: list[str], hints: list[str]) -> None:
    """Say them; the node lives on where nobody can hear that."""
    from p2pnode.interfaces.cli.console_log import STDERR, STDOUT, write_line

    for line in lines:
        if trouble := write_line(STDOUT, line):
            logger.info("standard output cannot be written: %s", trouble)
    for hint in hints:
        write_line(STDERR, hint)
