"""A whole node, still without I/O: every core wired to the others.

Datagrams go to the transport; what it opens goes to membership (first byte 0xA5) or, as V-Frames,
to inference. What those want to say goes back through the transport, which is dialled where no
session is up. A driver runs this core on a socket, a simulation on the virtual network: the same
code. Computing and loading are events out and commands in.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import TypeVar

from p2pnode.engine.base import ModelInfo, StageCost
from p2pnode.errors import GenerationError, RemoteProtocolError
from p2pnode.inference.core import Inference
from p2pnode.inference.cover import Covered
from p2pnode.inference.events import ComputeRequested, InferenceEvent, SendFrame
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import WorkResult
from p2pnode.membership.events import (
    MemberDied,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MembershipEvent,
    MemberSuspected,
    MemberUpdated,
)
from p2pnode.membership.messages import MAGIC
from p2pnode.membership.swim import Swim
from p2pnode.node.advert import Advert
from p2pnode.node.config import NodeConfig
from p2pnode.node.dialer import Dialer, Sighting
from p2pnode.node.events import Departed, NodeEvent, Noted, PeerReached
from p2pnode.node.holdings import Holdings
from p2pnode.node.life import Evidence, Life, Phase
from p2pnode.node.links import LinkMeter
from p2pnode.node.origin import Origin
from p2pnode.node.parley import Parley
from p2pnode.node.planner import DirectoryPlanner
from p2pnode.node.post import Post, SendRefused
from p2pnode.node.reach import Reach
from p2pnode.node.serving import Serving
from p2pnode.node.traffic import Traffic
from p2pnode.sansio import Address, NodeId, Rng, Transmit
from p2pnode.scheduler.chain import NoCover
from p2pnode.scheduler.offences import Offence
from p2pnode.scheduler.trust import Ledger
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.events import (
    DialFailed,
    KeyUsedTwice,
    MessageReceived,
    PathTooSmall,
    PeerConnected,
    PeerDisconnected,
    PeerResponsive,
    PeerUnresponsive,
    TransportEvent,
)
from p2pnode.transport.identity import verify
from p2pnode.wire.calibration import CalibrationSet
from p2pnode.wire.capability import SPACE_MISMATCH
from p2pnode.wire.messages import SyncError, parse_sync_untrusted, sync_frame
from p2pnode.wire.vframe import Frame, MessageType, decode_frame_untrusted

_T = TypeVar("_T")
_LOG_LINES = 200
_LEAVING = "leaving the swarm"
_GOSSIP = bytes((MAGIC,))


class NodeCore:
    """One node: transport, membership, scheduler and inference."""

    def __init__(self, config: NodeConfig, origin: Origin, rng: Rng, now: float) -> None:
        self.config = config
        self.origin = origin
        self.node_id = origin.identity.node_id
        self.started_at = now
        self.advert = Advert(config.name, config.device, config.kv_bytes)
        self.endpoint = Endpoint(config.transport, origin.identity, origin.swarm_secret, rng, now)
        self.swim = Swim(
            config.membership,
            origin.identity,
            verify,
            origin.swarm_tag,
            origin.boot_epoch,
            origin.addresses,
            self.advert.encode(),
            rng,
            now,
            is_heard=self._is_heard,
        )
        self.silent: set[NodeId] = set()
        self.ledger = Ledger(config.trust, self.endpoint.address_of)
        self.planner = DirectoryPlanner(
            self.node_id, self.advert, self.swim, self.endpoint, self.silent
        )
        self.links = LinkMeter(
            self.endpoint, self.planner.measured_rtt, config.transport.max_ack_delay
        )
        self.inference = Inference(
            config.inference,
            self.node_id,
            self.planner,
            rng,
            self.links,
            self.ledger,
            queued=self._under_way,
        )
        self.life = Life()
        self.serving = Serving(
            config,
            self.node_id,
            self.life,
            self.advert,
            self.swim,
            self.planner,
            self.inference,
            rng,
        )
        self.reach = Reach(origin.addresses)
        self.traffic = Traffic()
        self.post = Post(
            self.node_id,
            self.endpoint,
            self.traffic,
            lambda peer: self.reach.order(self.planner.addresses_of(peer)),
            config.post,
            self.links,
        )
        self.parley = Parley()
        self.counters: Counter[str] = Counter()
        self.dialer = Dialer(config.dialer, self.node_id, self.counters)
        self.log: deque[str] = deque(maxlen=_LOG_LINES)
        self.model: ModelInfo | None = None
        self._events: list[NodeEvent] = []

    @property
    def holdings(self) -> Holdings:
        """Which layers this node holds, and why."""
        return self.serving.holdings

    @property
    def served(self) -> range:
        """The layers that the engine holds."""
        return self.serving.layers

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
    ) -> None:
        """Ask for answers of ``model``; with ``hold``, also take on some of its layers.

        ``calibrations`` are of its hidden states.

        Raises:
            ConfigError: The layers to hold go beyond the model's.
        """
        self.serving.use_model(model, hold=hold, now=now)
        self.model = model
        self.inference.use_model(model, calibrations)
        self._settle(now)

    def layers_loaded(self, layers: range, cost: StageCost, now: float) -> None:
        """The engine holds ``layers``, at the measured ``cost``: serve them."""
        if self.leaving:
            return
        self.serving.loaded(layers, cost, now)
        self._note(f"serving layers [{layers.start}, {layers.stop}): {self.holdings.reason}")
        self._settle(now)

    def load_failed(self, reason: str, now: float) -> None:
        if self.leaving:
            return
        self.holdings.failed(reason)
        self._note(f"cannot serve: {reason}")
        self._settle(now)

    def connect(self, address: Address, now: float) -> None:
        """Call ``address`` until somebody of the swarm answers there."""
        self.dialer.add_fixed(address, now)
        self._settle(now)

    def resolved(self, name: Address, found: tuple[Address, ...], now: float) -> None:
        """A host name given by hand stands for the addresses ``found``: call those."""
        self.dialer.resolved(name, found, now)
        self._settle(now)

    def recall(self, peer: NodeId, addresses: tuple[Address, ...], now: float) -> None:
        """Call a peer that was met at an earlier start."""
        self.dialer.remember(peer, addresses, now)
        self._settle(now)

    def addresses_changed(self, reach: Reach, now: float) -> None:
        """This node is on the network elsewhere: tell the swarm, and call whom it lost thereby.

        A session moves by itself once its peer hears us from the new address, so each is told
        something at once.
        """
        if reach == self.reach:
            return
        if reach.addresses != self.reach.addresses:
            self._note(f"reachable at {', '.join(host for host, _ in reach.addresses)}")
            self.swim.update_addresses(reach.addresses, now)
        self.reach = reach
        for peer in self.endpoint.peers():
            self.endpoint.ping(peer, now)
        self.dialer.hurry(now)
        self._settle(now)

    def saw(self, peer: NodeId, sighting: Sighting, now: float) -> None:
        """Take a hint, e.g. of mDNS, that ``peer`` is near."""
        if peer != self.node_id:
            self.dialer.saw(peer, sighting, now)
            self._settle(now)

    def unsaw(self, peer: NodeId, now: float) -> None:
        """The hint was withdrawn; liveness is membership's alone."""
        self.dialer.unsaw(peer)
        self._settle(now)

    def generate(self, request: GenerationRequest, now: float) -> int:
        """Start an answer and return its number.

        Raises:
            GenerationError: It cannot fit the model, or this node is leaving; nothing happened.
        """
        if self.leaving:
            raise GenerationError("this node is leaving the swarm")
        number = self.inference.generate(request, now)
        self._settle(now)
        return number

    def ask_capability(self, peer: NodeId, now: float) -> None:
        """Ask ``peer`` what both can do; its answer will be in ``parley.agreed``.

        Raises:
            GenerationError: There is no model, and so no space to speak of.
        """
        if self.model is None:
            raise GenerationError("this node has no model, and so no space to agree on")
        self.post.send_frame(peer, self.parley.wish(peer, self.model), now)
        self._settle(now)

    def cancel(self, generation: int, now: float) -> None:
        self.inference.cancel(generation)
        self._settle(now)

    def compute_finished(self, job: int, result: WorkResult, now: float) -> None:
        """Take the result of a :class:`ComputeRequested`."""
        self.serving.finished(job, result, now)
        self.inference.compute_finished(job, result, now)
        self._settle(now)

    def measured(self, cost: StageCost, now: float) -> None:
        """Take the result of a :class:`~p2pnode.node.events.MeasureRequested`."""
        self.serving.measured(cost, now)
        self._settle(now)

    def planned(self, generation: int, ticket: int, result: Covered | NoCover, now: float) -> None:
        """Take the result of a :class:`PlanRequested`."""
        self.inference.planned(generation, ticket, result, now)
        self._settle(now)

    def leave(self, now: float, *, drain: float | None = None) -> None:
        """Take on nothing new, and leave once the sessions of others have finished.

        ``drain`` is how many seconds they have for it, :attr:`NodeConfig.drain` if left out. Asked
        again, a node leaves no later than before. The event Departed says that it has left.
        """
        deadline = now + (self.config.drain if drain is None else drain)
        if self.life.phase is Phase.DRAINING:
            self.life.deadline = min(deadline, self.life.deadline or deadline)
        elif not self.leaving:
            self.life.move(Evidence.LEAVE_ASKED, deadline=deadline)
            self.inference.cancel_all()
            self.inference.drain(_LEAVING)
            self.serving.announce(now)
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
        if self.links.is_watching:
            self.links.look(now)
        if self.inference.is_holding_back:
            self.inference.refill()
        self._settle(now)

    def handle_timeout(self, now: float) -> None:
        if self.life.phase is Phase.LEFT:
            return
        cores = (self.endpoint, self.swim, self.inference, self.post)
        for core in cores if self.leaving else (*cores, self.serving):
            moment = core.next_timeout()
            if moment is not None and moment <= now:
                core.handle_timeout(now)
        self._settle(now)

    # Outputs

    def next_timeout(self) -> float | None:
        if self.life.phase is Phase.LEFT:
            return None
        moments = (
            self.endpoint.next_timeout(),
            self.swim.next_timeout(),
            self.inference.next_timeout(),
            self.post.next_timeout(),
            self.life.deadline,
            None if self.leaving else self.serving.next_timeout(),
            None if self.leaving else self.dialer.due,
        )
        return min((moment for moment in moments if moment is not None), default=None)

    def datagrams_to_send(self) -> list[Transmit[Address]]:
        taken = self.endpoint.datagrams_to_send()
        for transmit in taken:
            self.traffic.datagram_out(len(transmit.payload))
        return taken

    def take_events(self) -> list[NodeEvent]:
        taken, self._events = self._events, []
        return taken

    # Wiring

    def _settle(self, now: float) -> None:
        """Let the cores hear each other until nobody has anything left to say."""
        if not self.leaving:
            self._dial(now)
            asked = (self.serving.review(now), self.serving.measurement(now))
            self._events += [event for event in asked if event is not None]
        self._exchange(now)
        if self.leaving:
            self._depart(now)
        else:
            self.serving.plan_announcement(now)

    def _exchange(self, now: float) -> None:
        """Hand what each core says to those that it concerns.

        What comes in flows one way, so one pass in this order is enough; only frames that we send
        to ourselves start another.
        """
        while True:
            for transported in self.endpoint.take_events():
                self._on_transport(transported, now)
            for said in self.swim.take_events():
                self._on_membership(said, now)
            for happened in self.inference.take_events():
                self._on_inference(happened, now)
            refused = self.post.take_refused(now)
            for dropped in refused:
                self._on_refused(dropped, now)
            if refused:
                continue
            if not self.post.to_ourselves:
                break
            frame = self.post.to_ourselves.popleft()
            self._drop_hostile(self._take_frame_untrusted, frame, self.node_id, now)
        for outgoing in self.swim.datagrams_to_send():
            self.post.send_gossip(outgoing.destination, outgoing.payload, outgoing.bulk, now)

    def _depart(self, now: float) -> None:
        """Go on with leaving: the sessions of others end, everybody is told, then ours close."""
        due = self.life.deadline is not None and now >= self.life.deadline
        if self.life.phase is Phase.DRAINING and (due or not self.inference.stages()):
            self.inference.give_up(_LEAVING)
            told = self.endpoint.peers()[: self.config.farewells]
            self.swim.leave(now, told=told)
            self.life.move(Evidence.DRAINED, deadline=now + self.config.farewell)
            self._exchange(now)
            due = False
        if self.life.phase is Phase.DEPARTING:
            unheard = any(self.endpoint.queued_bytes(peer) for peer in self.endpoint.peers())
            if due or not unheard:
                self.endpoint.close_all(_LEAVING, now)
                self.life.move(Evidence.FAREWELL_HEARD)
                self._events.append(Departed())

    def _on_refused(self, dropped: SendRefused, now: float) -> None:
        """What was said to a peer has a hole in it: whoever leans on the peer must do without."""
        self._note(f"{self.planner.name_of(dropped.peer)} cannot be sent to: {dropped.reason}")
        self.inference.peer_lost(dropped.peer, f"cannot be sent to: {dropped.reason}", now)

    def _on_inference(self, event: InferenceEvent, now: float) -> None:
        if isinstance(event, SendFrame):
            self.post.send_frame(event.peer, event.frame, now)
            return
        if isinstance(event, ComputeRequested):
            self.serving.started(event.job, event.work)
        self._events.append(event)

    def _on_transport(self, event: TransportEvent, now: float) -> None:
        match event:
            case MessageReceived(peer, payload, _):
                self._drop_hostile(self._receive_message_untrusted, payload, peer, now)
            case PeerConnected(peer, address):
                self.silent.discard(peer)
                self.dialer.reached(peer, address, now)
                self.post.connected(peer, now)
                self.inference.refill()
                self.swim.join(peer, now)
                self._returned(peer, now)
                self._events.append(PeerReached(peer, address))
                self._note(f"session with {self.planner.name_of(peer)} at {address[0]} is up")
            case PeerUnresponsive(peer, silent_for):
                self.silent.add(peer)
                self.swim.report_unresponsive(peer, now)
                self.inference.peer_lost(peer, f"silent for {silent_for:.1f} s", now)
                self._note(f"{self.planner.name_of(peer)} has been silent for {silent_for:.1f} s")
            case PeerResponsive(peer):
                self.silent.discard(peer)
                self.swim.report_responsive(peer, now)
                self._returned(peer, now)
            case PeerDisconnected(peer, reason):
                self.silent.discard(peer)
                self.inference.peer_lost(peer, f"session closed: {reason}", now, Offence.CLOSED)
                self._note(f"session with {self.planner.name_of(peer)} closed: {reason}")
            case KeyUsedTwice(peer, address, other):
                self.counters["one key on two machines"] += 1
                first = "this node" if address is None else f"{address[0]}:{address[1]}"
                self._note(
                    f"{self.planner.name_of(peer)}: two machines use one key, {first} and "
                    f"{other[0]}:{other[1]}; remove identity.key on one of them, and start it anew"
                )
            case PathTooSmall(peer, address, size):
                self._note(
                    f"the path to {self.planner.name_of(peer)} at {address[0]} does not carry "
                    f"datagrams of {size} bytes: look at the MTU of VPNs and tunnels on the way"
                )
            case DialFailed(address, peer, reason):
                self.counters["dial failed"] += 1
                if self.dialer.failed(address, peer, reason, now):
                    self._note(f"nobody reached at {address[0]}:{address[1]}: {reason}")
                if peer is not None and not self.endpoint.is_connected(peer):
                    self.post.unreachable(peer)

    def _on_membership(self, event: MembershipEvent, now: float) -> None:
        match event:
            case MemberJoined(record):
                self._note(f"{self.planner.name_of(record.node_id)} joined the swarm")
                self._returned(record.node_id, now)
            case MemberUpdated(record):
                self.inference.peer_back(record.node_id, now)
            case MemberSuspected(peer, reason):
                self._note(f"{self.planner.name_of(peer)} is suspected: {reason}")
                if not self._is_heard(peer, now):
                    self.inference.peer_lost(peer, f"suspected: {reason}", now)
            case MemberRefuted(peer):
                self._returned(peer, now)
            case MemberDied(peer, reason):
                self._forget(peer, f"dead: {reason}", now)
            case MemberLeft(peer):
                self._forget(peer, "left the swarm", now)

    def _returned(self, peer: NodeId, now: float) -> None:
        """``peer`` is there again: whoever was away but once may be used at once."""
        self.ledger.returned(peer, now)
        self.inference.peer_back(peer, now)

    def _under_way(self, peer: NodeId) -> int:
        return self.post.under_way(peer)

    def _is_heard(self, peer: NodeId, now: float) -> bool:
        """Whether ``peer`` was heard just now: then a suspicion is bad luck and breaks no chain."""
        ago = self.endpoint.heard_ago(peer, now)
        return ago is not None and ago < self.config.transport.silence / 4

    def _forget(self, peer: NodeId, reason: str, now: float) -> None:
        self._note(f"{self.planner.name_of(peer)} is gone: {reason}")
        self.inference.peer_lost(peer, reason, now)
        self.inference.peer_gone(peer)  # its session ends by itself, or is already a new life's

    def _receive_message_untrusted(self, payload: bytes, peer: NodeId, now: float) -> None:
        if payload[:1] == _GOSSIP:
            self.traffic.received("gossip", len(payload))
            self.swim.receive_datagram(payload, peer, now)
            return
        frame = decode_frame_untrusted(payload)
        self.traffic.received(frame.type.name.lower(), len(payload))
        self._take_frame_untrusted(frame, peer, now)

    def _take_frame_untrusted(self, frame: Frame, peer: NodeId, now: float) -> None:
        if frame.type is MessageType.SYNC and frame.space_hash32 == 0:  # an error; never answered
            error = SyncError.from_body_untrusted(parse_sync_untrusted(frame))
            known = error.code if error.code == SPACE_MISMATCH else "another"
            self.counters[f"error from a peer: {known}"] += 1
            self._note(f"{self.planner.name_of(peer)} answers: {error.message[:200]}")
            return
        if self.parley.concerns_untrusted(frame):
            owed = self.parley.receive_untrusted(frame, peer, self.model)
            if owed is not None:
                self.post.send_frame(peer, owed, now)
            return
        refusal = self.inference.receive_frame_untrusted(frame, peer, now)
        if refusal is not None:
            self._note(f"refused a frame of {self.planner.name_of(peer)}: {refusal.message}")
            answer = sync_frame(
                refusal.to_body(), stream_id=frame.stream_id, frame_seq=0, space_hash32=0
            )
            self.post.send_frame(peer, answer, now)

    def _drop_hostile(
        self, receive: Callable[[_T, NodeId, float], None], said: _T, peer: NodeId, now: float
    ) -> None:
        """What a member says may still be wrong: count it, drop it, keep the session."""
        try:
            receive(said, peer, now)
        except RemoteProtocolError as error:
            self.counters["message refused"] += 1
            self._note(f"refused a message: {error}")

    def _dial(self, now: float) -> None:
        if self.dialer.due is None or now < self.dialer.due:
            return
        reached = [self.endpoint.address_of(peer) for peer in self.endpoint.peers()]
        addresses = [address for address in reached if address is not None]
        connected = self.endpoint.is_connected
        for call in self.dialer.calls(now, connected, addresses, self.reach):
            self.endpoint.connect(call.address, now, tries=call.tries)

    def _note(self, line: str) -> None:
        # What peers say is in some of these, and faces print them.
        line = "".join(letter for letter in line if letter.isprintable())
        self.log.append(line)
        self._events.append(Noted(line))
