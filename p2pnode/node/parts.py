"""What one node is made of: its cores, and what they share."""

from collections import Counter, deque

from p2pnode.engine.base import ModelInfo
from p2pnode.inference.core import Inference
from p2pnode.inference.prefix_names import shared_scope
from p2pnode.membership.swim import Swim
from p2pnode.node.advert import Advert
from p2pnode.node.bundle import Bundle
from p2pnode.node.config import NodeConfig
from p2pnode.node.dialer import Dialer
from p2pnode.node.events import NodeEvent, Noted
from p2pnode.node.inquiries import Inquiries
from p2pnode.node.life import Life
from p2pnode.node.links import LinkMeter
from p2pnode.node.narration import Narration
from p2pnode.node.observer import Observer
from p2pnode.node.origin import Origin
from p2pnode.node.outbox import Outbox
from p2pnode.node.peer_lines import PeerLines
from p2pnode.node.planner import DirectoryPlanner
from p2pnode.node.program_frames import ProgramFrames
from p2pnode.node.reach import Reach
from p2pnode.node.remarks import Remarks
from p2pnode.node.serving import Serving
from p2pnode.node.shared_keys import CURE, SharedKeys
from p2pnode.node.traffic import Traffic
from p2pnode.sansio import Address, NodeId, Rng
from p2pnode.scheduler.trust import Ledger
from p2pnode.terminal import label
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.identity import verify

_LOG_LINES = 200


class NodeParts:
    """The cores of a node, none of which knows another's events.

    Attributes:
        silent: Peers that do not acknowledge what we send.
        shared_keys: Keys, our own among them, that two machines use: where both are, and the cure.
        remarks: Whether a peer's mistake may be reported once more.
        peer_lines: Lines about peers that come, go or ask, where there are not too many.
        counters: What the node itself dropped or refused, by reason.
        log: The newest lines for a person.
        noted_at: When each of them was noted.
        clock: When the cores last heard each other: a line's time needs to be no better.
        narration: What is said of answers, of work for others and of missing layers.
        events: What is to be told to the world.
        observer: Hears of what happens to messages, for a measurement; None for nobody.
    """

    def __init__(self, config: NodeConfig, origin: Origin, rng: Rng, now: float) -> None:
        self.config = config
        self.origin = origin
        self.node_id = origin.identity.node_id
        self.started_at = now
        self.counters: Counter[str] = Counter()
        self.advert = Advert(config.name, config.device, config.kv_bytes, software=config.software)
        self.endpoint = Endpoint(config.transport, origin.identity, origin.swarm_secret, rng, now)
        self.swim = self._membership(rng, now)
        self.silent: set[NodeId] = set()
        self.ledger = Ledger(config.trust, self.endpoint.address_of)
        self.planner = DirectoryPlanner(
            self.node_id,
            self.advert,
            self.swim,
            self.endpoint,
            self.silent,
            config.inference.prefill_chunk,
        )
        self.links = LinkMeter(
            self.endpoint, self.planner.measured_rtt, config.transport.max_ack_delay
        )
        self.reach = Reach(origin.addresses)
        self.traffic = Traffic()
        self.outbox = Outbox(
            self.node_id, self.endpoint, self.traffic, self._called_at, config.outbox, self.links
        )
        self.inference = self._inference(rng)
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
            self.endpoint.is_connected,
            self.counters,
        )
        self.inquiries = Inquiries()
        self.programs = ProgramFrames(
            config.programs, self.node_id, self.outbox, self.endpoint.is_connected
        )
        self.dialer = Dialer(config.dialer, self.node_id, self.counters)
        self.log: deque[str] = deque(maxlen=_LOG_LINES)
        self.noted_at: deque[float] = deque(maxlen=_LOG_LINES)
        self.clock = now
        self.shared_keys = SharedKeys(config.key_shared_shown)
        self.events: list[NodeEvent] = []
        self.observer: Observer | None = None
        room = config.transport.max_peers
        self.remarks = Remarks(config.remarks, room, self.say, self.counters)
        self.peer_lines = PeerLines(config.remarks, room, self.note, self.counters)
        narrates = (self.node_id, self.planner, self.inference.generation)
        self.narration = Narration(*narrates, self.say, self.peer_lines)

    def _membership(self, rng: Rng, now: float) -> Swim:
        origin = self.origin
        return Swim(
            self.config.membership,
            origin.identity,
            verify,
            origin.swarm_tag,
            origin.boot_epoch,
            origin.addresses,
            self.advert.encode(),
            rng,
            now,
            is_heard=self.is_heard,
        )

    def _inference(self, rng: Rng) -> Inference:
        return Inference(
            self.config.inference,
            self.node_id,
            self.planner,
            rng,
            self.links,
            self.ledger,
            queued=self.outbox.under_way,
            is_proven=self.endpoint.is_proven,
            arriving=self.endpoint.arriving_bytes,
            scope=shared_scope(self.config.inference.reuse.word, self.origin.swarm_secret),
        )

    @property
    def first(self) -> Bundle | None:
        """The model that is meant where none is named, and what is held of it."""
        return next(iter(self.serving.bundles.values()), None)

    @property
    def model(self) -> ModelInfo | None:
        """The model that is meant where none is named; None without one."""
        return None if self.first is None else self.first.model

    @property
    def served(self) -> range:
        """The layers of it that the engine holds."""
        return range(0) if self.first is None else self.first.layers

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """All its models."""
        return tuple(bundle.model for bundle in self.serving.bundles.values())

    def model_of(self, space: int) -> ModelInfo | None:
        """Return our model of this space."""
        bundle = self.serving.bundles.get(space)
        return None if bundle is None else bundle.model

    def is_our_space(self, space: int) -> bool:
        """Whether a model of ours has this space; 0 is that of a node without one."""
        return space in self.serving.bundles or (space == 0 and not self.serving.bundles)

    def observe(self, observer: Observer | None) -> None:
        """Let ``observer`` hear of what happens to messages from here on."""
        self.observer = self.outbox.observer = observer

    def is_heard(self, peer: NodeId, now: float) -> bool:
        """Whether ``peer`` was heard just now: then a suspicion is bad luck and breaks no chain."""
        ago = self.endpoint.heard_ago(peer, now)
        return ago is not None and ago < self.config.transport.silence / 4

    def _called_at(self, peer: NodeId) -> tuple[Address, ...]:
        return self.reach.order(self.planner.addresses_of(peer))

    def note(self, line: str, *, is_notice: bool = False) -> None:
        """Log a line for a person; of a notice, whoever runs the node hears as it happens.

        What peers say is in some of these, and faces print them.
        """
        line = label(line)
        self.log.append(line)
        self.noted_at.append(self.clock)
        self.events.append(Noted(line, is_notice))

    def say(self, line: str) -> None:
        """Log a line as a notice."""
        self.note(line, is_notice=True)

    def key_is_shared(self, peer: NodeId, where: str, now: float) -> None:
        """Note that two machines, at two addresses (``where``), use one key, and the cure."""
        self.counters["one key on two machines"] += 1
        cure = f"two machines use one key, {where}; {CURE}"
        name = "this node" if peer == self.node_id else self.planner.name_of(peer)
        self.peer_lines.say(peer, f"{name}: {cure}", now)
        self.shared_keys.observed(peer, cure, now)
