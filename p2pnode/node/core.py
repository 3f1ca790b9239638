"""A whole node, still without I/O: every core wired to the others.

Datagrams go to the transport; what it opens goes to membership (first byte 0xA5) or, as V-Frames,
to inference. What those want to say goes back through the transport, which is dialled where no
session is up. A reactor runs this core on a socket, a simulation on the virtual network: the same
code. Computing, loading and long planning are events out and commands in.
"""

from p2pnode.engine.base import EngineProfile, ModelInfo, StageCost
from p2pnode.errors import GenerationError
from p2pnode.inference.cover import Covered
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Computed, WorkResult
from p2pnode.moments import earliest
from p2pnode.node.bundle import Asked, Bundle
from p2pnode.node.capacity import Capacity
from p2pnode.node.config import NodeConfig
from p2pnode.node.departure import Departure
from p2pnode.node.events import LoadRequested, NodeEvent
from p2pnode.node.life import Phase
from p2pnode.node.origin import Origin
from p2pnode.node.parts import NodeParts
from p2pnode.node.reach import Reach
from p2pnode.node.resting import Rest
from p2pnode.node.retirement import Retirement
from p2pnode.node.setbacks import Setbacks
from p2pnode.node.sightings import Sighting
from p2pnode.node.wiring import Wiring
from p2pnode.sansio import Address, NodeId, Rng, Transmit
from p2pnode.scheduler.chain import NoCover
from p2pnode.scheduler.placement import Placement
from p2pnode.wire.calibration import CalibrationSet
from p2pnode.wire.rest import rest_words
from p2pnode.wire.vframe import Frame


class NodeCore(NodeParts):
    """One node: transport, membership, scheduler and inference."""

    def __init__(self, config: NodeConfig, origin: Origin, rng: Rng, now: float) -> None:
        super().__init__(config, origin, rng, now)
        self._wiring = Wiring(self)
        self._setbacks = Setbacks(self)
        self._departure = Departure(self, self._wiring)
        self._retirement = Retirement(self)

    @property
    def leaving(self) -> bool:
        """Whether this node takes on nothing new any more."""
        return self.life.is_leaving

    # Commands

    def use_model(
        self,
        model: ModelInfo,
        *,
        hold: bool,
        now: float,
        calibrations: CalibrationSet | None = None,
        capacity: Capacity | None = None,
        layers: range | None = None,
    ) -> None:
        """Ask for answers of ``model``, too; with ``hold``, also take on some of its layers.

        ``calibrations`` are of its hidden states; ``capacity`` is what of it there is memory for,
        None for all of it; ``layers`` are those that its owner chose.

        Raises:
            ConfigError: The layers to hold go beyond the model's, or it cannot be one of several.
        """
        self.serving.use_model(model, hold=hold, now=now, fitting=capacity, layers=layers)
        self.inference.use_model(model, calibrations)
        if not hold:
            self.say(f"holds no layers of {model.name}, as was asked: it puts questions to others")
        elif capacity is not None:
            self.narration.capacity(model, capacity, layers or self.config.holdings.layers)
        self._settle(now)

    def drop_model(self, space: int, now: float, *, drain: float | None = None) -> None:
        """Serve a model no more, and ask nothing more of it; its engine is freed then.

        ``drain`` is how many seconds its sessions have to finish, :attr:`NodeConfig.drain` if left
        out; those that remain go on elsewhere, and answers of this node fail.

        Raises:
            UserError: This node has no such model.
        """
        self._retirement.begin(space, now + (self.config.drain if drain is None else drain), now)
        self._settle(now)

    def is_lost(self, space: int) -> bool:
        """Whether a model's file is another than the one that was hashed."""
        bundle = self.serving.bundles.get(space)
        return bundle is not None and bundle.is_lost

    def model_changed(self, space: int, reason: str, now: float) -> None:
        """A model's file no longer holds what was hashed: leave its layers. Said once."""
        bundle = self.serving.bundles.get(space)
        if self.leaving or bundle is None or bundle.is_lost:
            return
        self._setbacks.model_lost(space, reason, now)
        self._settle(now)

    def model_restored(self, space: int, now: float) -> None:
        """A model's file holds again what was hashed: take on layers as at the start."""
        bundle = self.serving.bundles.get(space)
        if self.leaving or bundle is None or not bundle.is_lost:
            return
        self._setbacks.model_restored(space, now)
        self._settle(now)

    def layers_loaded(self, space: int, layers: range, profile: EngineProfile, now: float) -> None:
        """An engine holds ``layers``, and ``profile`` is what it is: serve them."""
        bundle = self._loading(space, layers)
        if bundle is None:
            return
        self.serving.loaded(space, layers, profile, now)
        self.narration.serves(bundle.model, layers, profile, bundle.holdings.reason)
        self._settle(now)

    def load_failed(self, space: int, layers: range, reason: str, now: float) -> None:
        """The layers that were to be loaded cannot be."""
        if self._loading(space, layers) is None:
            return
        self._setbacks.load_failed(space, reason, now)
        self._settle(now)

    def _loading(self, space: int, layers: range) -> Bundle | None:
        """Return the model, if these are to be loaded still: it may have been lost meanwhile."""
        bundle = self.serving.bundles.get(space)
        if bundle is None or self.leaving or not bundle.is_loading:
            return None
        return bundle if bundle.holdings.layers == layers else None

    def is_loading(self, space: int, layers: range) -> bool:
        """Whether these layers are to be loaded still."""
        return self._loading(space, layers) is not None

    def connect(self, address: Address, now: float) -> None:
        """Call ``address`` until somebody of the swarm answers there."""
        self.dialer.add_fixed(address, now)
        self._settle(now)

    def resolved(self, name: Address, found: tuple[Address, ...], now: float) -> None:
        """A host name given by hand stands for the addresses ``found``: call those."""
        self.dialer.resolved(name, found, now)
        self._settle(now)

    def recall(
        self, peer: NodeId, addresses: tuple[Address, ...], now: float, *, proven: bool = False
    ) -> None:
        """Call a peer that was met at an earlier start; one ``proven`` then need not be again."""
        if proven:
            self.endpoint.vouch(peer)
        self.dialer.remember(peer, addresses, now)
        self._settle(now)

    def addresses_changed(self, reach: Reach, now: float) -> None:
        """Take where this node is on the network now, and tell the swarm.

        Where it has moved, each session is told something at once, for a session moves by itself
        once its peer hears us from the new address; and whom it lost thereby is called. A bridge
        that came with a container is no move.
        """
        if reach == self.reach:
            return
        before, self.reach = self.reach, reach
        if reach.addresses != before.addresses:
            self.note(f"reachable at {', '.join(host for host, _ in reach.addresses)}")
            self.swim.update_addresses(reach.addresses, now)
        moved = reach.has_moved_from(before)
        for peer in self.endpoint.peers() if moved else ():
            self.endpoint.ping(peer, now)
        self.dialer.hurry(now, moved=moved)
        self._settle(now)

    def sighted(self, peer: NodeId, sighting: Sighting, now: float) -> None:
        """Take a hint, e.g. of mDNS, that ``peer`` is near."""
        if peer != self.node_id:
            self.dialer.sighted(peer, sighting, now)
            self._settle(now)

    def sighting_withdrawn(self, peer: NodeId, now: float) -> None:
        """The hint was withdrawn; liveness is membership's alone."""
        self.dialer.sighting_withdrawn(peer)
        self._settle(now)

    def generate(self, request: GenerationRequest, now: float) -> int:
        """Start an answer and return its number.

        Raises:
            GenerationError: It cannot fit the model, or this node is leaving; nothing happened.
        """
        if self.leaving:
            raise GenerationError("this node is leaving the swarm")
        number = self.inference.generate(request, now)
        self.serving.asked(request.space, now)
        self._settle(now)
        return number

    def ask_capability(self, peer: NodeId, now: float) -> None:
        """Ask ``peer`` what both can do; its answer will be in ``inquiries.agreed``.

        Raises:
            GenerationError: There is no model, and so no space to speak of.
        """
        model = self.model
        if model is None:
            raise GenerationError("this node has no model, and so no space to agree on")
        self.outbox.send_frame(peer, self.inquiries.propose(peer, model), now)
        self._settle(now)

    def send_frame(self, peer: NodeId, frame: Frame, now: float) -> None:
        """Send a frame of the program that runs this node; raises as ``programs.send`` does."""
        self.programs.send(peer, frame, now)
        self._settle(now)

    def cancel(self, generation: int, now: float) -> None:
        self.inference.cancel(generation, now)
        self._settle(now)

    def compute_finished(self, job: int, space: int, result: WorkResult, now: float) -> None:
        """Take the result of a :class:`ComputeRequested`."""
        self.serving.finished(job, result, now)
        self.inference.compute_finished(job, result, now)
        if not isinstance(result, Computed):
            self._setbacks.look_at(space, result, now)
        self._hear(now)

    def measured(self, space: int, cost: StageCost, now: float) -> None:
        """Take the result of a :class:`~p2pnode.node.events.MeasureRequested`."""
        self.serving.measured(space, cost, now)
        self._settle(now)

    def measurement_failed(self, space: int, now: float) -> None:
        """A :class:`~p2pnode.node.events.MeasureRequested` led to nothing; it is made again."""
        self.serving.measurement_failed(space, now)
        self._settle(now)

    def planned(self, generation: int, ticket: int, result: Covered | NoCover, now: float) -> None:
        """Take the result of a :class:`PlanRequested`."""
        self.inference.planned(generation, ticket, result, now)
        self._settle(now)

    def placed(self, space: int, ticket: int, placement: Placement | None, now: float) -> None:
        """Take the result of a :class:`~p2pnode.node.events.PlacementRequested`."""
        if self.leaving:
            return
        load = self.serving.placed(space, ticket, placement, now)
        if load is not None:
            self._ask(load)
        self._settle(now)

    def rest(self, rest: Rest | None, now: float) -> None:
        """Compute for nobody else, for the reason given; None ends it. The weights stay loaded.

        Answers of others go on elsewhere at once; where nobody else holds the layers, they wait.
        Those of this node are computed as ever.
        """
        before, cause = self.serving.resting, None if rest is None else rest.cause
        if self.leaving or (None if before is None else before.cause) is cause:
            return
        self.serving.rest(rest, now)
        if rest is None:
            self.inference.rest("")
            self.say("computes for others again")
        else:
            self.counters[f"stepped back: {rest_words(rest.cause)}"] += before is None
            alone = self.narration.alone(
                (one.model, one.layers) for one in self.serving.bundles.values()
            )
            self.say(f"steps back: {rest.words}{alone}")
            self.inference.rest(rest_words(rest.cause) + alone)
        self._settle(now)

    def leave(self, now: float, *, drain: float | None = None) -> None:
        """Take on nothing new, and leave once the sessions of others have finished.

        ``drain`` is how many seconds they have for it, :attr:`NodeConfig.drain` if left out. Asked
        again, a node leaves no later than before. The event Departed says that it has left.
        """
        self._departure.begin(now + (self.config.drain if drain is None else drain), now)
        self._settle(now)

    # Inputs

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        """Take one datagram.

        Raises:
            RemoteProtocolError: It was malformed; the transport has counted it.
        """
        if self.life.phase is Phase.LEFT:
            return
        self.traffic.datagram_in(len(data))
        self.endpoint.receive_datagram(data, source, now)
        if self.observer is not None:
            self.observer.datagram_opened()
        if self.links.pending:
            self.links.look(now)
        if self.inference.held:
            self.inference.refill()
        self._hear(now)

    def handle_timeout(self, now: float) -> None:
        if self.life.phase is Phase.LEFT:
            return
        cores = (self.endpoint, self.swim, self.inference, self.outbox)
        for core in cores if self.leaving else (*cores, self.serving):
            moment = core.next_timeout()
            if moment is not None and moment <= now:
                core.handle_timeout(now)
        self._settle(now)

    # Outputs

    def next_timeout(self) -> float | None:
        if self.life.phase is Phase.LEFT:
            return None
        leaving = self.life.is_leaving
        return earliest(
            self.endpoint.next_timeout(),
            self.swim.next_timeout(),
            self.inference.next_timeout(),
            self.outbox.next_timeout(),
            self.life.deadline if leaving else self.serving.next_timeout(),
            None if leaving else self.dialer.due,
        )

    def datagrams_to_send(self) -> list[Transmit[Address]]:
        taken = self.endpoint.datagrams_to_send()
        for transmit in taken:
            self.traffic.datagram_out(len(transmit.payload))
        return taken

    @property
    def gathers(self) -> bool:
        """Whether more that has arrived is to be taken before events: it may join a step."""
        return self.inference.gathers

    def take_events(self) -> list[NodeEvent]:
        step = self.inference.compose()
        if step is not None:
            self.serving.started(step.job, step.space, step.work)
            self.events.append(step)
        taken, self.events = self.events, []
        return taken

    # Time passes, and cores hear each other

    def _hear(self, now: float) -> None:
        """Let the cores hear each other until nobody has anything left to say.

        That is all after a datagram or a computed job: what only time or a command brings about
        waits for the next timer, for here each call is a part of a hop.
        """
        self._wiring.exchange(now)
        if self.life.is_leaving:
            self._departure.go_on(now)
        elif self.serving.is_retiring:
            unloads = self._retirement.go_on(now)
            self._wiring.exchange(now)
            self.events += unloads  # behind what its sessions still ask of the engine

    def _settle(self, now: float) -> None:
        """Do what is due, and let the cores hear each other."""
        if not self.life.is_leaving:
            self._dial(now)
            for asked in self.serving.requests(now):
                self._ask(asked)
            self.narration.look(self.models, now)
        self._hear(now)
        if not self.life.is_leaving:
            self.serving.plan_announcement(now)

    def _ask(self, asked: Asked) -> None:
        """Ask the world to load, measure or place; loading takes a while, so it is said."""
        if isinstance(asked, LoadRequested):
            self.say(f"loads layers [{asked.layers.start}, {asked.layers.stop}): {asked.reason}")
        self.events.append(asked)

    def _dial(self, now: float) -> None:
        if self.dialer.due is None or now < self.dialer.due:
            return
        reached = [self.endpoint.address_of(peer) for peer in self.endpoint.peers()]
        addresses = [address for address in reached if address is not None]
        connected = self.endpoint.is_connected
        for call in self.dialer.calls(now, connected, addresses, self.reach):
            self.endpoint.connect(call.address, now, tries=call.tries)
