"""A running node: the core on a socket, with mDNS, an engine in a worker, and a control socket."""

import logging
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import trio

from p2pnode.engine.base import Engine, ModelInfo, StageCost
from p2pnode.engine.registry import load_engine
from p2pnode.engine.tokenizer import Tokenizer
from p2pnode.errors import GenerationError, ModelError, UserError
from p2pnode.inference.events import ComputeRequested, GenerationEvent, PlanRequested
from p2pnode.inference.work import Work, WorkFailed, WorkResult, run_work
from p2pnode.net.addresses import format_address, reachable_addresses, resolve
from p2pnode.net.announcement import Announcement
from p2pnode.net.compute import ComputeWorker, Failed, Finished, Served, Watch
from p2pnode.net.control import control_path, serve_control
from p2pnode.net.driver import Driver
from p2pnode.net.mdns import MdnsEvent, MdnsService, Sighted
from p2pnode.net.udp import UdpSocket, open_udp
from p2pnode.node.answers import AnswerStream, Question, request_of
from p2pnode.node.config import NodeConfig
from p2pnode.node.core import NodeCore
from p2pnode.node.dialer import Sighting
from p2pnode.node.events import Departed, LoadRequested, NodeEvent, Noted, PeerReached
from p2pnode.node.handlers import handlers
from p2pnode.node.identity import RememberedPeer, StateDirectory
from p2pnode.node.invite import SECRET_BYTES, Invite
from p2pnode.node.models import data_signature, describe_model, state_calibrations
from p2pnode.node.origin import Origin
from p2pnode.node.picture import World, snapshot
from p2pnode.node.snapshot import NodeSnapshot
from p2pnode.sansio import Address, NodeId
from p2pnode.transport.identity import Identity
from p2pnode.wire.calibration import CalibrationSet

logger = logging.getLogger(__name__)

_GOODBYE = 0.25  # seconds for telling the swarm, when whoever runs the node will not wait
_INVITED = 4  # addresses in an invite


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a person chooses about one node.

    Attributes:
        config: The core's settings.
        state: Its state directory.
        model: A GGUF file; None for a node without a model.
        hold: Whether to take on layers; a mere requester does not.
        host: Address to bind; ``::`` is every interface, IPv4 included.
        port: UDP port; 0 lets the system choose.
        peers: Addresses to call, beside those remembered.
        mdns: Whether to announce and to look around on the local network.
    """

    config: NodeConfig
    state: Path
    model: Path | None = None
    hold: bool = True
    host: str = "::"
    port: int = 0
    peers: tuple[Address, ...] = ()
    mdns: bool = True


class Node:
    """Composes and runs everything; faces use :meth:`ask`, :meth:`snapshot` and :meth:`stop`."""

    core: NodeCore

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self._mdns: MdnsService | None = None
        self._state = StateDirectory(settings.state)
        self._model: ModelInfo | None = None
        self._calibrations: CalibrationSet | None = None
        self._tokenizer: Tokenizer | None = None
        self._engine: Engine | None = None
        self._streams: dict[int, AnswerStream] = {}
        self._remembered: dict[NodeId, RememberedPeer] = {}
        self._stopping = trio.Event()
        self._departed = trio.Event()

    # Running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until :meth:`stop` or cancellation; then leave the swarm properly.

        Raises:
            UserError: The state directory, the model or the port cannot be used.
        """
        settings = self.settings
        with self._state.lock():
            if settings.model is not None:
                self._model = await trio.to_thread.run_sync(describe_model, settings.model)
                self._calibrations = await self._read_calibrations(self._model)
            self._socket = open_udp(settings.host, settings.port)
            try:
                self._compose(self._socket)
                await self._serve(task_status)
            finally:
                self._socket.close()

    def stop(self, *, at_once: bool = False) -> None:
        """Leave the swarm and end :meth:`run`; ``at_once`` without waiting for others' answers."""
        self._stopping.set()
        if at_once:
            self._driver.call(lambda now: self.core.leave(now, drain=0.0))

    @staticmethod
    async def _read_calibrations(model: ModelInfo) -> CalibrationSet | None:
        """Read what is known of the model's hidden states; a broken file only makes them larger."""
        try:
            return await trio.to_thread.run_sync(state_calibrations, model.space_hash32)
        except ModelError as error:
            logger.warning("%s", error)
            return None

    def _compose(self, socket: UdpSocket) -> None:
        state = self._state
        secret = state.swarm_secret()
        if secret is None:  # the first of its swarm
            secret = secrets.token_bytes(SECRET_BYTES)
            state.set_swarm_secret(secret)
        self._remembered = {peer.node_id: peer for peer in state.remembered_peers()}
        origin = Origin(
            Identity(state.identity_seed()),
            secret,
            state.next_boot_epoch(time.time()),
            reachable_addresses(socket.address),
        )
        rng = random.SystemRandom()
        self.core = NodeCore(self.settings.config, origin, rng, trio.current_time())
        self._driver: Driver[NodeEvent] = Driver(self.core, socket, self._on_event)

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        self._worker = ComputeWorker()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self._worker.run)
            self._worker.watch(
                Watch(
                    self._socket.fileno,
                    self._receive_in_worker,
                    self._driver.rest_in_worker,
                    self._computed,
                    self._driver.let_worker_watch,
                )
            )
            nursery.start_soon(self._driver.run)
            self._take_up_model()
            nursery.start_soon(self._call_peers)
            if self.settings.mdns:
                nursery.start_soon(self._look_around)
            path = control_path(self.settings.state)
            await nursery.start(serve_control, path, handlers(self))
            task_status.started()
            await self._depart_when_told()
            nursery.cancel_scope.cancel()

    async def _depart_when_told(self) -> None:
        """Wait for the word, then for the answers of others; leave at once when cancelled."""
        try:
            await self._stopping.wait()
            self._driver.call(self.core.leave)
            await self._departed.wait()
        finally:
            with trio.move_on_after(_GOODBYE, shield=True):
                self._driver.call(lambda now: self.core.leave(now, drain=0.0))
                await self._departed.wait()

    def _take_up_model(self) -> None:
        model, hold, known = self._model, self.settings.hold, self._calibrations
        if model is not None:
            self._driver.call(
                lambda now: self.core.use_model(model, hold=hold, now=now, calibrations=known)
            )

    async def _call_peers(self) -> None:
        known = [address for peer in self._remembered.values() for address in peer.addresses]
        for address in dict.fromkeys((*self.settings.peers, *known)):
            try:
                found = await resolve(address)
            except UserError as error:
                logger.warning("%s: %s", format_address(address), error)
                self.core.log.append(f"{format_address(address)}: {error}")
                continue
            for one in found:
                self.connect(one)

    async def _look_around(self) -> None:
        """Announce ourselves and follow announcements; without multicast, say so and go on."""
        origin = self.core.origin
        announcement = Announcement(
            node_id=self.core.node_id,
            swarm_tag=origin.swarm_tag,
            name=self.settings.config.name,
            addresses=origin.addresses,
        )
        self._mdns = MdnsService(announcement, self._on_sight)
        await self._mdns.run()
        if self._mdns.problem:
            self.core.log.append(f"mDNS is off: {self._mdns.problem}")

    def _on_sight(self, event: MdnsEvent) -> None:
        core = self.core
        if not isinstance(event, Sighted):
            self._driver.call(lambda now: core.unsaw(event.node_id, now))
            return
        seen = event.announcement
        ours = seen.swarm_tag == core.origin.swarm_tag
        sighting = Sighting(seen.addresses, seen.name, ours)
        self._driver.call(lambda now: core.saw(seen.node_id, sighting, now))

    # Events of the core

    def _on_event(self, event: NodeEvent, now: float) -> None:
        match event:
            case ComputeRequested():
                self._compute(event)
            case PlanRequested():
                self._nursery.start_soon(self._plan, event)
            case LoadRequested(layers):
                self._worker.submit(
                    lambda: self._load(layers), lambda outcome: self._on_loaded(layers, outcome)
                )
            case PeerReached(peer, address):
                self._remember(peer, address)
            case Noted(line):
                logger.info(line)
            case Departed():
                self._departed.set()
            case _:
                self._route(event)

    async def _plan(self, asked: PlanRequested) -> None:
        """Find peers in trio's pool: that may take longer than the loop has."""
        result = await trio.to_thread.run_sync(asked.task)
        self._driver.call(
            lambda now: self.core.planned(asked.generation, asked.ticket, result, now)
        )

    def _compute(self, request: ComputeRequested) -> None:
        self._worker.submit(self._job(request), self._computed)

    def _job(self, request: ComputeRequested) -> Callable[[], None]:
        """Return what the worker does: compute, and send the result; the next stage waits."""

        def compute() -> None:
            if not self.core.inference.wants(request.job):
                return  # the session was closed while this waited
            result = self._run(request.work)
            self._driver.call_from_worker(
                lambda now: self.core.compute_finished(request.job, result, now),
                self._worker.wake_loop,
            )
            self._worker.unhurried()

        return compute

    def _computed(self, outcome: Finished[None] | Failed) -> None:
        if isinstance(outcome, Failed):
            raise outcome.error  # a bug: run_work turns whatever a peer can cause into a result
        self._driver.flush()

    def _receive_in_worker(self) -> Served | None:
        received = self._driver.receive_in_worker(_is_compute_request)
        if received is None:
            return None
        job = None if received.work is None else self._job(received.work)
        return Served(job, received.is_loop_wanted, received.is_answered)

    def _run(self, work: Work) -> WorkResult:
        if self._engine is None:
            return WorkFailed("no layers are loaded here")
        try:
            return run_work(self._engine, work, time.perf_counter)
        except Exception as error:
            logger.exception("the engine failed")
            return WorkFailed(f"the engine failed: {error}")

    def _load(self, layers: range) -> tuple[Engine, StageCost]:
        """Load in the worker: computing waits, the loop does not."""
        path = self.settings.model
        if path is None:
            raise UserError("this node has no model")
        engine = load_engine(
            path,
            layers,
            kv_budget_bytes=self.settings.config.kv_bytes,
            signature=data_signature,
        )
        return engine, engine.measure()

    def _on_loaded(
        self, layers: range, outcome: Finished[tuple[Engine, StageCost]] | Failed
    ) -> None:
        if isinstance(outcome, Failed):
            reason = str(outcome.error) or type(outcome.error).__name__
            logger.error("loading failed", exc_info=outcome.error)
            self._driver.call(lambda now: self.core.load_failed(reason, now))
            return
        self._engine, cost = outcome.value
        self._driver.call(lambda now: self.core.layers_loaded(layers, cost, now))

    def _remember(self, peer: NodeId, address: Address) -> None:
        known = self._remembered.pop(peer, RememberedPeer(peer, ()))
        addresses = tuple(dict.fromkeys((address, *known.addresses)))[:_INVITED]
        self._remembered = {peer: RememberedPeer(peer, addresses), **self._remembered}
        try:
            self._state.remember_peers(tuple(self._remembered.values()))
        except UserError as error:
            self.core.log.append(str(error))

    def _route(self, event: GenerationEvent) -> None:
        stream = self._streams.get(event.generation)
        if stream is None:
            return
        stream.put(event)
        if stream.is_unread and self._streams.pop(event.generation, None) is not None:
            self.core.counters["answer cancelled: its reader stopped reading"] += 1

    # For faces

    def connect(self, address: Address) -> None:
        """Call ``address`` until somebody of the swarm answers there."""
        self._driver.call(lambda now: self.core.connect(address, now))

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def ask(self, question: Question) -> AnswerStream:
        """Start an answer.

        Raises:
            GenerationError: There is no model here, or the prompt does not fit it.
            UserError: A peer was named that nobody knows.
        """
        model = self._model
        if model is None:
            raise GenerationError(
                "this node has no model", hint="start it with: p2pnode up --model smollm2-135m"
            )
        request = self._driver.call(lambda _: request_of(question, model, self._find_peer))
        number = 0

        def cancel() -> None:
            self._driver.call(lambda now: self.core.cancel(number, now))

        stream = AnswerStream(cancel, lambda: self._streams.pop(number, None))

        def start(now: float) -> None:
            nonlocal number
            number = self.core.generate(request, now)
            self._streams[number] = stream

        self._driver.call(start)
        return stream

    def snapshot(self) -> NodeSnapshot:
        """Return the picture of this moment."""
        counters = self._driver.counters + self._socket.counters
        if self._mdns is not None:
            counters += self._mdns.counters
        world = World(
            listening=(format_address(self._socket.address),),
            loop_late_ms=self._driver.loop_late_ms(),
            receive_buffer_bytes=self._socket.receive_buffer_bytes,
            counters=tuple(counters.items()),
        )
        return self._driver.call(lambda now: snapshot(self.core, world, now))

    def invite(self) -> Invite:
        """Return a way into this node's swarm."""
        origin = self.core.origin
        return Invite(origin.swarm_secret, origin.addresses[:_INVITED])

    async def tokenizer(self) -> Tokenizer:
        """Return the model's tokenizer; the first call reads it off the file.

        Raises:
            UserError: There is no model here.
        """
        path = self.settings.model
        if path is None:
            raise UserError("this node has no model", hint="start it with --model")
        if self._tokenizer is None:
            self._tokenizer = await trio.to_thread.run_sync(Tokenizer.from_gguf, path)
        return self._tokenizer

    @property
    def engine(self) -> Engine | None:
        """The engine, once it has loaded; only the worker may compute with it."""
        return self._engine

    def _find_peer(self, name: str) -> NodeId:
        """Resolve a name or the head of a key."""
        core = self.core
        known = [core.node_id, *(one.record.node_id for one, _ in core.planner.members())]
        wanted = name.lower()
        found = [
            peer
            for peer in known
            if core.planner.name_of(peer) == name or peer.hex().startswith(wanted)
        ]
        if len(found) == 1:
            return found[0]
        names = ", ".join(sorted(core.planner.name_of(peer) for peer in known))
        problem = "no peer" if not found else "more than one peer"
        raise UserError(f"{problem} is called {name!r}", hint=f"known here: {names}")


def _is_compute_request(event: NodeEvent) -> TypeGuard[ComputeRequested]:
    return isinstance(event, ComputeRequested)
