"""A node in a program's own process, under trio."""

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import trio

from p2pnode.errors import UserError, first_in
from p2pnode.interfaces.cli.node_options import DEFAULT_MODEL, UpOptions
from p2pnode.interfaces.cli.settings import settings_of
from p2pnode.interfaces.joining import change_swarm
from p2pnode.interfaces.python.answer import AsyncRunningAnswer
from p2pnode.interfaces.python.events import Embeddings
from p2pnode.interfaces.python.frames import Frames
from p2pnode.interfaces.python.groups import freed
from p2pnode.interfaces.python.missing import cannot_embed
from p2pnode.interfaces.python.options import up_options
from p2pnode.interfaces.python.parsing import embeddings_of
from p2pnode.interfaces.python.question import (
    ChatOptions,
    Message,
    Params,
    PromptOptions,
    chat_params,
    prompt_params,
)
from p2pnode.interfaces.python.watching import Watch
from p2pnode.net.addresses import format_address, parse_address, resolve
from p2pnode.net.control_lines import Rendered
from p2pnode.node.answering.question import Question
from p2pnode.node.handlers import handlers
from p2pnode.node.invite import Invite, decode_invite, encode_invite
from p2pnode.node.node import Node as RunningNode
from p2pnode.node.peer_snapshot import PeerView
from p2pnode.node.snapshot import NodeSnapshot
from p2pnode.wire.messages import Ask, Critique
from p2pnode.wire.vframe import Frame

WATCH_SECONDS = 1.0
"""Between two pictures, as ``p2pnode top`` draws them at the least."""


class Node:
    """A node of a swarm, for as long as a block of the program lasts.

    For instance::

        async with p2pnode.Node(invite=code) as node:
            answer = await node.generate("Why is the sky blue?").read()

    To leave the block is to leave the swarm: after the answers that it computes for others, 10 s at
    most; at once where the block ends by an error or is cancelled. What ends the node by itself
    cancels the block and is raised at its end.

    It is for one task tree: its methods are called from tasks of the trio loop in which it was
    entered. It can be entered once.

    Its options are those of ``p2pnode up``, checked by the same code, and what is None is as it is
    there. ``invite`` is one more. ``state`` and ``port`` have defaults of their own, so that a
    program disturbs no node that the machine has already.

    Args:
        model: Name, GGUF file, folder of a checkpoint, its id of the hub, or ``none``; or several
            of them, each with ``=A:B`` for the layers to hold of it. What is known and not here
            is fetched as the block is entered.
        invite: A code to join by; None to be the first of a swarm, or in the one of ``state``.
        state: The state directory, which keeps key, swarm and remembered peers; None for one of
            its own that is removed at the end, and so for another key at each start.
        name: What to call it.
        layers: ``auto``, ``A:B`` or ``none``.
        max_layers: Most layers to hold with ``auto``.
        listen: Address to bind.
        port: UDP port; 0 lets the system choose.
        peer: Addresses of members to call, ``HOST:PORT``.
        mdns: Whether to look for peers on the local network.
        kv_memory: MiB of memory for KV caches.
        activations: How the answers that are asked for here travel between peers.
        batching: ``on`` to compute tokens of several answers together; ``off`` one by one.
        reuse: ``own`` to begin answers with what its earlier ones computed, ``with:WORD`` to share
            that with all who say the same word; ``off``.
        engine: What computes.
        device: Where.
        threads: Of the CPU.
        max_memory: All that it may take, e.g. ``4G``.
        max_vram: The same of a GPU's memory.
        when: ``idle`` to step back while the owner uses the machine; else ``always``.
        quiet_hours: Hours in which it computes for nobody else, e.g. ``22:00-07:00``.
    """

    def __init__(
        self,
        model: str | Sequence[str] = DEFAULT_MODEL,
        *,
        invite: str | None = None,
        state: str | os.PathLike[str] | None = None,
        name: str | None = None,
        layers: str | None = None,
        max_layers: int | None = None,
        listen: str | None = None,
        port: int = 0,
        peer: Sequence[str] = (),
        mdns: bool = True,
        kv_memory: int | None = None,
        activations: str | None = None,
        batching: str | None = None,
        reuse: str | None = None,
        engine: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        max_memory: str | None = None,
        max_vram: str | None = None,
        when: str | None = None,
        quiet_hours: Sequence[str] = (),
    ) -> None:
        """Read the options; nothing begins before the block is entered.

        Raises:
            UserError: A value is impossible, or the code is none.
        """
        said = {
            "model": model,
            "state": state,
            "name": name,
            "layers": layers,
            "max_layers": max_layers,
            "listen": listen,
            "port": port,
            "peer": tuple(peer),
            "mdns": mdns,
            "kv_memory": kv_memory,
            "activations": activations,
            "batching": batching,
            "reuse": reuse,
            "engine": engine,
            "device": device,
            "threads": threads,
            "max_memory": max_memory,
            "max_vram": max_vram,
            "when": when,
            "quiet_hours": tuple(quiet_hours),
        }
        self._options: UpOptions = up_options(said)
        self._invite: Invite | None = None
        self._node: RunningNode | None = None
        self._stack: AsyncExitStack | None = None
        self._has_ended = False
        if invite is not None:
            self.join(invite)

    # Its life

    def join(self, code: str) -> None:
        """Join the swarm of an invite code, as ``p2pnode join``; before the block is entered.

        Raises:
            UserError: It is no code, or the node has begun.
        """
        if self._stack is not None:
            raise UserError(
                "this node is in a swarm already", hint="join before: Node(invite=code)"
            )
        self._invite = decode_invite(code)

    async def __aenter__(self) -> Self:
        """Start it, and return when it is up; layers may still be loading.

        Raises:
            UserError: The model, the port or the state cannot be used.
        """
        if self._stack is not None:
            raise UserError("a node begins once", hint="make another: p2pnode.Node(...)")
        self._stack = AsyncExitStack()
        with freed():
            async with AsyncExitStack() as stack:
                self._node = await self._begun(stack)
                self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stack, node = self._stack, self._node
        if stack is None or node is None:
            raise UserError("this node has not begun")
        if error is None and not self._has_ended:
            node.stop()
        with freed():
            await stack.__aexit__(kind, error, trace)

    def stop(self, *, at_once: bool = False) -> None:
        """Begin to leave the swarm; the end of the block waits for it.

        ``at_once``: without waiting for the answers that it computes for others.

        Raises:
            UserError: It is not running.
        """
        self._up.stop(at_once=at_once)

    # The node and its swarm

    @property
    def state(self) -> Path:
        """The state directory, where ``p2pnode --state`` and :class:`Client` find it.

        Raises:
            UserError: It is not running.
        """
        return self._up.settings.state

    def snapshot(self) -> NodeSnapshot:
        """Return the picture of this moment.

        Raises:
            UserError: It is not running.
        """
        return self._up.snapshot()

    def peers(self) -> tuple[PeerView, ...]:
        """Return every other node known; raises as :meth:`snapshot`."""
        return self.snapshot().peers

    def watch(self, interval: float = WATCH_SECONDS) -> Watch:
        """Return an iterator of pictures: one at once, then one every ``interval`` seconds.

        It ends when the node does, and is empty where the node has ended by now.

        Raises:
            UserError: It has not begun.
        """
        node = self._node or self._up
        return Watch(interval, lambda: None if self._has_ended else node.snapshot())

    def invite(self) -> str:
        """Return a code that lets whoever has it into the swarm.

        Raises:
            UserError: It is not running.
        """
        return encode_invite(self._up.invite())

    async def connect(self, address: str) -> tuple[str, ...]:
        """Call ``HOST:PORT`` until somebody of the swarm answers there.

        Returns:
            The addresses that are called.

        Raises:
            UserError: It is not running, or this is no address.
        """
        node = self._up
        found = await resolve(parse_address(address))
        for one in found:
            node.connect(one)
        return tuple(format_address(one) for one in found)

    # Asking

    def generate(
        self, prompt: str | Sequence[int], **options: Unpack[PromptOptions]
    ) -> AsyncRunningAnswer:
        """Ask for an answer to ``prompt``, words or token ids; it begins with its first event.

        To cancel a scope around its reader cancels the answer.

        Raises:
            TypeError: There is no such option.
            UserError: It is not running, or what is asked cannot be.
        """
        return self._ask(prompt_params(prompt, options))

    def chat(
        self, messages: Sequence[Message], **options: Unpack[ChatOptions]
    ) -> AsyncRunningAnswer:
        """Ask for the next message of a chat; raises as :meth:`generate`."""
        return self._ask(chat_params(messages, options))

    async def embed(self, texts: Sequence[str], model: str | None = None) -> Embeddings:
        """Return a vector for each text; ``model`` names what makes them, None for the node's.

        Raises:
            UserError: It is not running, or cannot do this.
        """
        embed = handlers(self._up).get("embed")
        if embed is None:
            raise cannot_embed()
        asked: Params = {"texts": list(texts)} | ({} if model is None else {"model": model})
        made = await embed(asked, _no_events)
        return embeddings_of(json.loads(made.text) if isinstance(made, Rendered) else made)

    # Frames of programs

    def send_frame(self, peer: str, frame: Frame | Ask | Critique) -> None:
        """Send an Ask or a Critique to the program that runs ``peer``.

        ``peer`` is a name, or the first letters of a key. It arrives once and whole, unless the
        peer is lost or its program takes too few: those are dropped and counted there.

        Raises:
            UserError: It is not running; nobody is called so, or several are; or the frame is of a
                kind that is the nodes' own, or no message.
            BusyError: There is no session with the peer, or too much is under way to it.
        """
        said = frame if isinstance(frame, Frame) else frame.to_frame()
        self._up.programs.send(peer, said)

    def frames(self) -> Frames:
        """Take the frames that other programs send to this one, from now on, until it is closed.

        Raises:
            UserError: It is not running, or they are taken already.
        """
        programs = self._up.programs
        return Frames(programs.open(), programs.name_of)

    @property
    def _up(self) -> RunningNode:
        if self._node is None or self._has_ended:
            raise UserError(
                "this node has ended" if self._has_ended else "this node has not begun",
                hint="use it in its block: async with p2pnode.Node(...) as node",
            )
        return self._node

    def _ask(self, params: Params) -> AsyncRunningAnswer:
        return AsyncRunningAnswer(self._up.answering.answer(Question.of(params)))

    async def _begun(self, stack: AsyncExitStack) -> RunningNode:
        """Return the node, running; ``stack`` ends it."""
        options = self._options
        if options.state is None:
            made = tempfile.TemporaryDirectory(prefix="p2pnode-", ignore_cleanup_errors=True)
            options = replace(options, state=Path(stack.enter_context(made)))
        node = await trio.to_thread.run_sync(
            _prepared, options, self._invite, abandon_on_cancel=True
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(self._run, node)
        return node

    async def _run(
        self, node: RunningNode, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        try:
            await node.run(task_status=task_status)
        except BaseExceptionGroup as group:
            raise (first_in(group, UserError) or group) from group
        finally:
            self._has_ended = True
            if node.is_up:
                node.programs.end()


def _prepared(options: UpOptions, invite: Invite | None) -> RunningNode:
    """Return a node that is ready to run: its model fetched, in the swarm of ``invite``."""
    if invite is not None:
        called = (format_address(address) for address in invite.addresses)
        options = replace(options, peer=(*options.peer, *called))
    settings = settings_of(options)
    if invite is not None:
        change_swarm(settings, invite.secret)
    return RunningNode(settings)


async def _no_events(body: object) -> None:
    del body
