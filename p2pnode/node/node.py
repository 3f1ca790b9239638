"""A running node: the core in a reactor, with mDNS, an engine, and a control socket."""

import logging
import os
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import trio

from p2pnode import CORES, __version__
from p2pnode.engine.base import ModelInfo
from p2pnode.errors import LocalProtocolError, ModelError, UserError
from p2pnode.inference.events import ComputeRequested, PlanRequested
from p2pnode.net.addresses import format_address
from p2pnode.net.control import control_path, serve_control
from p2pnode.net.interfaces import reachable_addresses
from p2pnode.net.local_nodes import LocalNode, registered
from p2pnode.net.reactor import Reactor
from p2pnode.net.udp import UdpSocket, open_udp
from p2pnode.node.answering.asking import Asking
from p2pnode.node.answering.question import Question
from p2pnode.node.answering.service import Answering
from p2pnode.node.answering.stream import AnswerStream
from p2pnode.node.core import NodeCore
from p2pnode.node.embedding import Embedding
from p2pnode.node.engine_jobs import EngineJobs
from p2pnode.node.events import (
    Departed,
    FrameWaits,
    LoadRequested,
    MeasureRequested,
    NodeEvent,
    Noted,
    PeerReached,
    PlacementRequested,
    Unloaded,
    UnloadRequested,
)
from p2pnode.node.fittings import PLAIN, Fittings
from p2pnode.node.grammars import can_follow_schemas
from p2pnode.node.handlers import handlers
from p2pnode.node.identity import StateDirectory
from p2pnode.node.invite import Invite
from p2pnode.node.kept_origin import kept_origin
from p2pnode.node.log_file import NOTICE, log_path, logging_to
from p2pnode.node.memory_budget import MemoryBudget
from p2pnode.node.model_loads import ModelLoads
from p2pnode.node.model_orders import ModelOrders
from p2pnode.node.model_watch import ModelWatch
from p2pnode.node.offloading import offload_placement, offload_plan
from p2pnode.node.own_model import OwnModel
from p2pnode.node.own_models import OwnModels
from p2pnode.node.picture import World, snapshot
from p2pnode.node.program_exchange import ProgramExchange
from p2pnode.node.rest_watch import RestWatch
from p2pnode.node.settings import ModelChoice, NodeSettings
from p2pnode.node.snapshot import NodeSnapshot
from p2pnode.node.surroundings import Surroundings
from p2pnode.node.text_worker import Prompt
from p2pnode.node.wall_clock import seconds_of_day
from p2pnode.sansio import Address
from p2pnode.wire.ad import Ability

logger = logging.getLogger(__name__)

T = TypeVar("T")

_GOODBYE = 0.25  # seconds for telling the swarm, when whoever runs the node will not wait
_INVITED = 4  # addresses in an invite


class Node:
    """Composes and runs everything; faces use :attr:`answering`, :meth:`snapshot` and :meth:`stop`.

    Attributes:
        answering: What answers faces: text in, text out.
        programs: What the program that runs it sends and takes; once it is up.
        is_up: Whether it has started; before, it is ended by cancelling :meth:`run`.
        embedding: Turns texts into vectors.
        models: What it asks for answers of, and serves layers of.
        orders: What loads and unloads models while it runs.
    """

    def __init__(self, settings: NodeSettings, fittings: Fittings = PLAIN) -> None:
        self.settings = settings
        self._fittings = fittings
        self._state = StateDirectory(settings.state)
        self.models = OwnModels()
        self._budget = MemoryBudget(settings) if settings.hold else None
        self._nursery: trio.Nursery | None = None
        self.answering = Answering(self.models.meant, self._start)
        self.orders = ModelOrders(self)
        self._rest: RestWatch | None = None
        self.is_up = False
        self.embedding = Embedding()
        self._stopping = trio.Event()
        self._departed = trio.Event()

    # Running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until :meth:`stop` or cancellation; then leave the swarm properly.

        Raises:
            UserError: The state directory, the model or the port cannot be used.
        """
        settings = self.settings
        with self._state.lock(), logging_to(log_path(settings.state)):
            try:
                for choice in settings.models:
                    await self.open(choice)
                await self._run(task_status)
            finally:
                for one in self.models:
                    await one.close()

    async def open(
        self, choice: ModelChoice, progress: Callable[[float], None] | None = None
    ) -> OwnModel:
        """Read a model, and take it if it is not here yet; return it, or the one that is.

        Raises:
            UserError: It cannot be run, or not beside the others.
        """
        if (known := self.models.of_path(choice.path)) is not None:
            return known
        self.models.refuse_more()
        one = await OwnModel.open(choice, self._budget, self.models.pinned, progress)
        same = None
        try:
            same = self.models.same_as(one)
        finally:
            if same is not one:
                await one.close()
        return same

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        self._socket = open_udp(self.settings.host, self.settings.port)
        try:
            self._compose(self._socket)
        except BaseException:
            self._socket.close()
            raise
        try:
            await self._serve(task_status)
        except BaseException:
            self._reactor.raise_failure()  # whatever else ended because of it
            raise
        finally:
            self._socket.close()

    def stop(self, *, at_once: bool = False) -> None:
        """Leave the swarm and end :meth:`run`; ``at_once`` without waiting for others' answers."""
        self._stopping.set()
        if at_once:
            self._reactor.call(lambda core, now: core.leave(now, drain=0.0))

    def _compose(self, socket: UdpSocket) -> None:
        state = self._state
        origin = self._origin = kept_origin(state, reachable_addresses(socket.address))
        config, fittings = self.settings.config, self._fittings
        config = replace(config, software=__version__)
        core = NodeCore(config, origin, random.SystemRandom(), trio.current_time())
        if not can_follow_schemas():
            core.advert.abilities &= ~Ability.SCHEMAS
        core.observe(fittings.observer)
        options = self.settings.engine
        self._engine = EngineJobs(config.kv_bytes, options, fittings)
        self._reactor: Reactor[NodeCore, NodeEvent] = Reactor(
            core,
            fittings.socket(socket),
            self._on_event,
            job_of=fittings.job_of(self._engine.job_of),
            thread=fittings.thread,
            gathers=lambda core: core.gathers,
        )
        self._loads = ModelLoads(self._reactor, self._engine)
        self._asking = Asking(self._reactor)
        self.programs = ProgramExchange(self._reactor)
        self._surroundings = Surroundings(
            origin,
            self.settings.config,
            self._reactor.call,
            state,
            socket.address,
            self.settings.peers,
            mdns=self.settings.mdns,
        )

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._reactor.run)
            self._nursery = nursery
            await self._look_at_owner(nursery)
            if self.models.first is None:
                self._reactor.call(lambda core, now: core.say("serves no layers: it has no model"))
            for one in self.models:
                self.take_up(one)
            nursery.start_soon(self._surroundings.run)
            path = control_path(self.settings.state)
            await nursery.start(serve_control, path, handlers(self))
            ours = self._as_local_node()
            with registered(path, ours):
                where = format_address(self._socket.address)
                logger.info("%s, process %d, began on %s", ours.name, ours.pid, where)
                logger.info("the cores run %s", CORES.in_words())
                self.is_up = True
                task_status.started()
                await self._depart_when_told()
            nursery.cancel_scope.cancel()

    def _as_local_node(self) -> LocalNode:
        """Return what others on this machine may know of this node."""
        state, name = self._state.path, self.settings.config.name
        node_id = self._origin.identity.node_id.hex()
        return LocalNode(state, log_path(state), name, node_id, os.getpid())

    async def _depart_when_told(self) -> None:
        """Wait for the word, then for the answers of others; leave at once when cancelled."""
        try:
            await self._stopping.wait()
            self._reactor.call(NodeCore.leave)
            await self._departed.wait()
        finally:
            if self._reactor.failure is None:
                with trio.move_on_after(_GOODBYE, shield=True):
                    self._reactor.call(lambda core, now: core.leave(now, drain=0.0))
                    await self._departed.wait()

    async def _look_at_owner(self, nursery: trio.Nursery) -> None:
        """Rest at once where it is time to: nothing is to be loaded then."""
        config = self.settings.config.rest
        if self.settings.hold and not config.is_always:
            self._rest = RestWatch(config, self._reactor.call)
            await self._rest.look()
            nursery.start_soon(self._rest.run)

    def take_up(self, one: OwnModel) -> None:
        """Ask for answers of a model, and serve layers of it where that is wanted.

        Raises:
            ConfigError: It cannot be one of several.
        """
        nursery, hold = self._nursery, self.settings.hold
        if nursery is None:
            raise LocalProtocolError("the node does not run")
        fitting = None if one.room is None else one.room.capacity
        watch = one.watched(self._reactor.call, self._engine.take)
        self._engine.take(one.file)
        self._loads.add(watch)
        try:
            self._reactor.call(
                lambda core, now: core.use_model(
                    one.info,
                    hold=hold,
                    now=now,
                    calibrations=one.calibrations,
                    capacity=fitting,
                    layers=one.choice.layers,
                )
            )
        except UserError:
            self._engine.forget(one.space)
            self._loads.remove(one.space)
            raise
        one.is_taken_up = True
        nursery.start_soon(self._watch, one, watch)

    async def _watch(self, one: OwnModel, watch: ModelWatch) -> None:
        with one.watching:
            await watch.run()

    # Events of the core

    def _on_event(self, event: NodeEvent, now: float) -> None:
        match event:
            case LoadRequested():
                self._loads.begin(event)
            case Unloaded(space):
                self._forget(space)
            case ComputeRequested() | MeasureRequested() | UnloadRequested():
                raise AssertionError("the engine thread computes, measures and unloads")
            case PlanRequested():
                offload_plan(self._reactor, event)
            case PlacementRequested():
                offload_placement(self._reactor, event)
            case PeerReached(peer, address):
                self._surroundings.met(peer, address)
            case Noted(line, is_aloud):
                logger.log(NOTICE if is_aloud else logging.INFO, "%s", line)
            case FrameWaits():
                self.programs.wake()
            case Departed():
                self._departed.set()
            case _:
                self._asking.route(event, now)

    def _forget(self, space: int) -> None:
        """Nothing of a model is used any more: let its file and its texts go."""
        one = self.models.of_space(space)
        self._loads.remove(space)
        if one is not None and self._nursery is not None:
            self.models.remove(one)
            self._nursery.start_soon(one.close)

    # For faces

    def connect(self, address: Address) -> None:
        """Call ``address`` until somebody of the swarm answers there."""
        self._surroundings.connect(address)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    async def wait_stopping(self) -> None:
        """Wait until it is told to stop."""
        await self._stopping.wait()

    def _start(self, question: Question, prompt: Prompt, model: ModelInfo) -> AnswerStream:
        """Start an answer.

        Raises:
            GenerationError: The prompt does not fit the model.
            UserError: A peer was named that several are called.
        """
        return self._asking.ask(question, prompt, model)

    async def model_report(self, name: str = "") -> dict[str, Any]:
        """Return what faces are told of the model that is called so; of the first without a name.

        Raises:
            UserError: There is none, or its file is broken by now.
        """
        return await self._report(self.models.meant(name))

    async def model_reports(self) -> list[dict[str, Any]]:
        """Return what faces are told of each model; of one whose file is broken, its problem."""
        return [await self._told(one) for one in self.models]

    async def _told(self, one: OwnModel) -> dict[str, Any]:
        try:
            return await self._report(one)
        except ModelError as error:
            problem = f"{error} ({error.hint})" if error.hint else str(error)
            named = {"name": one.info.name, "root": one.info.data_sig, "problem": problem}
            return {**named, **self._called(one)}

    async def _report(self, one: OwnModel) -> dict[str, Any]:
        return {**await one.report(), **self._called(one)}

    def _called(self, one: OwnModel) -> dict[str, Any]:
        """Return what a model is called: with its root where two share its name, and besides."""
        label = self.models.called().get(one.space, one.info.name)
        return {"label": label, "also": list(one.name.also)}

    def call(self, command: Callable[[NodeCore, float], T]) -> T:
        """Run a command on the core."""
        return self._reactor.call(command)

    def snapshot(self) -> NodeSnapshot:
        """Return the picture of this moment."""
        return self._reactor.call(lambda core, now: snapshot(core, self._world(), now))

    def _world(self) -> World:
        """Return what the core cannot know; under the lock, as the engine thread counts too."""
        counters = self._reactor.counters + self._socket.counters
        counters.update(self._surroundings.counters)
        counters.update(self.answering.turns.counters)
        for one in self.models:
            counters.update(one.texts.counters)
        return World(
            listening=(format_address(self._socket.address),),
            loop_late_ms=self._reactor.loop_late_ms(),
            receive_buffer_bytes=self._socket.receive_buffer_bytes,
            counters=tuple(counters.items()),
            mdns_problem=self._surroundings.mdns_problem,
            pid=os.getpid(),
            cores=CORES.in_words(),
            resting="" if self._rest is None else self._rest.why,
            owners_cpu=None if self._rest is None else self._rest.owners_cpu,
            limits=self.settings.limits,
            called=self.models.called(),
            wall_s=seconds_of_day(),
        )

    @property
    def swarm_tag(self) -> bytes:
        """A hash that names the swarm and reveals nothing of its secret."""
        return self._origin.swarm_tag

    def invite(self) -> Invite:
        """Return a way into this node's swarm."""
        addresses = self._reactor.call(lambda core, now: core.reach.addresses)
        return Invite(self._origin.swarm_secret, addresses[:_INVITED])
