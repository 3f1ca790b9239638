"""A node of one's own for as long as a command lasts, where none is running."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from p2pnode.errors import UsageError, UserError
from p2pnode.interfaces.cli.node_options import FreshNodeOption, UpOptions
from p2pnode.interfaces.cli.output import note
from p2pnode.interfaces.cli.running_node import others_than, reach
from p2pnode.interfaces.cli.settings import note_untested, settings_of, state_of
from p2pnode.net.control_client import ControlClient
from p2pnode.net.control_door import answers
from p2pnode.net.control_lines import find_control_path
from p2pnode.system import start_deaf_to_continue

if TYPE_CHECKING:
    from p2pnode.node.settings import NodeSettings

_STOPPING = 10.0  # seconds for leaving the swarm; then the process ends anyway


@dataclass(frozen=True, slots=True)
class Host:
    """A node to talk to.

    Attributes:
        path: Its control socket.
        is_fresh: Whether it was started for this command, and so knows nobody yet.
        model: Which of its models is asked; empty for its first.
    """

    path: Path
    is_fresh: bool
    model: str = ""

    def has_ended(self) -> bool:
        """Whether nobody listens there any more."""
        return not answers(self.path)

    def client(self) -> ControlClient:
        """Connect; what is asked is cancelled when the client hangs up."""
        return ControlClient(self.path, timeout=None)


@contextmanager
def some_node(options: UpOptions, *, quiet: bool, chats: bool = False) -> Iterator[Host]:
    """Yield the running node, or one started for the occasion.

    Where it ``chats``, one whose model cannot is not started.

    Raises:
        UserError: Neither is possible.
    """
    state = state_of(options.state)
    if _is_running(state):
        _refuse_ignored(state)
        yield Host(find_control_path(state), is_fresh=False, model=_named_model())
        return
    settings = settings_of(options)
    for one in settings.models if chats else ():
        _refuse_no_template(one.path)
    if not quiet:
        for one in settings.models:
            note_untested(one.path)
        note(f"no node runs on {state}: starting one for this command")
        if others := others_than(state):
            note(f"(to ask one that runs, name it with --state: {others})")
    with _running(settings):
        yield Host(find_control_path(state), is_fresh=True)


def _refuse_no_template(model: Path) -> None:
    """Refuse a model that cannot chat before a node loads it.

    Raises:
        ModelError: It has no chat template, or is broken.
    """
    from p2pnode.node.model_facts import facts_of
    from p2pnode.text.template import no_template

    if not facts_of(model).has_template:
        raise no_template()


def _named_model() -> str:
    """Return the model that a person named with this very command; empty for none.

    What a settings file says is for the node that a command starts.
    """
    context = click.get_current_context(silent=True)
    said = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    if context is None or context.get_parameter_source("model") not in said:
        return ""
    return str(context.params["model"])


def _refuse_ignored(state: Path) -> None:
    """Refuse options that are for a node to start, where one is running.

    Raises:
        UsageError: One was given, and would be ignored.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return
    given = [
        option.opts[0]
        for option in context.command.params
        if isinstance(option, FreshNodeOption)
        and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(
            f"a node runs on {state} already, and would ignore {', '.join(given)}",
            hint="leave that out, or stop the node first (p2pnode stop), or choose another --state",
        )


def _is_running(state: Path) -> bool:
    client = reach(state)
    if client is None:
        return False
    client.close()
    return True


@contextmanager
def _running(settings: NodeSettings) -> Iterator[None]:
    """Run a node in a thread of its own; a face talks to it as to any other."""
    logging.getLogger("p2pnode").setLevel(logging.ERROR)  # warnings are for those who run nodes
    ready, problems = threading.Event(), list[BaseException]()
    thread = threading.Thread(
        target=_run, args=(settings, ready, problems), name="node", daemon=True
    )
    start_deaf_to_continue(thread)
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
