"""The chain of one answer: its legs, epochs and edges, and the words that open and feed it.

Invariants, by phase of the generation. PLANNING: ``lost`` names the legs that are to be replaced
(before the first plan there are no legs at all); the edges are those of an epoch that is over.
OPENING: ``lost`` is empty, both edges are those of ``epoch``, and ``reached`` has the legs that
answered in it. RUNNING: ``reached`` has every leg. ENDED: nothing moves. A leg's number is never
used twice; ``epoch`` and what a leg has ``computed`` only grow; it is what a stage says of itself,
or what a token proves, and never above what was sent.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from p2pnode.engine.base import ModelInfo
from p2pnode.inference.activations import Batch, to_frames
from p2pnode.inference.control import control_frame
from p2pnode.inference.cover import Cover, Leg
from p2pnode.inference.events import SendFrame
from p2pnode.inference.messages import Close, Control, Edge, Open, Resume
from p2pnode.inference.numerics import LayerNumerics
from p2pnode.inference.prefix_body import MOST_LEGS, Names
from p2pnode.inference.prefix_names import Scope, digests, lineage, name_of
from p2pnode.inference.session import Session
from p2pnode.sansio import NodeId, Rng
from p2pnode.scheduler.chain import ChainPlan


class Chain:
    """The stages that the answer needs, and how to reach them.

    Attributes:
        epoch: Which chain this is.
        legs: Its stages, in order.
        lost: Numbers of legs that are to be replaced.
        reached: From where on each leg lacks input, of those that have answered in this epoch.
        computed: How far each leg, of any epoch, has shown to have computed.
        arrived: How many positions each leg has shown to have got, in whole batches or not.
        answer_edge: Where tokens come from.
        is_fed: Whether anything was ever sent into it.
        plan: What the first chain was planned as, until it runs.
        numerics: How each layer was computed.
        begun: Boundaries that the session may have in common with earlier ones; none where nothing
            is to be reused.
        scope: What those are named with.
        outbox: Frames to send.
    """

    def __init__(
        self, session: Session, cover: Cover, model: ModelInfo, node_id: NodeId, rng: Rng
    ) -> None:
        self.epoch = 0
        self.legs: tuple[Leg, ...] = ()
        self.lost: set[int] = set()
        self.reached: dict[int, int] = {}
        self.computed: dict[int, int] = {}
        self.arrived: dict[int, int] = {}
        self._streams: list[int] = []
        self._proved = 0
        self._known: frozenset[int] = frozenset()
        self.answer_edge: Edge | None = None
        self.is_fed = False
        self.plan: ChainPlan | None = None
        self.numerics = LayerNumerics()
        self.begun: Sequence[int] = ()
        self.scope = Scope(b"")
        self._named: set[int] = set()  # legs that were asked what they hold
        self._is_told = False  # whether legs wait to be told what the next ones lack
        self.outbox: list[SendFrame] = []
        self.cover = cover
        self._session = session
        self._space = model.space_hash32
        self._root = bytes.fromhex(model.data_sig)
        self._node_id = node_id
        self._rng = rng
        self._feed_edge: Edge | None = None

    @property
    def path(self) -> list[NodeId]:
        """The nodes a token visits, from here and back to here."""
        return [self._node_id, *(leg.run.peer for leg in self.legs), self._node_id]

    @property
    def hops(self) -> int:
        return sum(one != other for one, other in itertools.pairwise(self.path))

    def legs_of(self, peer: NodeId) -> set[int]:
        return {leg.number for leg in self.legs if leg.run.peer == peer}

    def leg(self, number: int, peer: NodeId) -> Leg | None:
        """Return the leg of that number, if it is that peer's."""
        for leg in self.legs:
            if leg.number == number and leg.run.peer == peer:
                return leg
        return None

    def use(self, legs: tuple[Leg, ...]) -> None:
        self.legs, self.lost = legs, set()
        self.computed = {leg.number: self.computed.get(leg.number, 0) for leg in legs}
        self.arrived = {leg.number: self.arrived.get(leg.number, 0) for leg in legs}
        self._streams = []

    def open(self) -> None:
        """Ask every leg to be of this epoch; a chain with other legs than before on new streams."""
        self.reached.clear()
        self._is_told = self.epoch > 0 or bool(self.begun)
        streams = self._streams = self._streams or self._draw_streams(len(self.legs) + 1)
        peers = self.path
        self._feed_edge = Edge(peers[1], streams[0])
        answer_edge, session = Edge(peers[-2], streams[-1]), self._session
        if answer_edge != self.answer_edge:
            self.answer_edge = answer_edge
            session.inbox.skip_to(session.wanted)
        for index, leg in enumerate(self.legs):
            last = index == len(self.legs) - 1
            order = Open(
                session=session.key,
                epoch=self.epoch,
                leg=leg.number,
                layers=leg.run.layers,
                positions=session.request.positions,
                upstream=Edge(peers[index], streams[index]),
                downstream=Edge(peers[index + 2], streams[index + 1]),
                out_dtype=leg.out_dtype,
                sampling=session.request.sampling if last else None,
                sample_from=session.wanted if last else 0,
                terms=self.cover.terms(leg),
                root=self._root,
                past=session.past if last else None,
                prefix=self._prefix(index),
            )
            self._say(leg.run.peer, order)

    def _prefix(self, index: int) -> Names | None:
        """Name what a leg that is new may hold already."""
        number = self.legs[index].number
        if not self.begun or number in self._named:
            return None
        self._named.add(number)
        return self.names(self.begun)[index]

    def names(self, ends: Sequence[int]) -> list[Names]:
        """Return what each leg calls these boundaries."""
        session, scope = self._session, self.scope
        found = sorted(digests(scope, self._root, session.sent, ends).items())
        lines = [lineage(self.legs, index) for index in range(len(self.legs))]
        return [
            Names(tuple((end, name_of(one, line)) for end, one in found), scope.is_shared)
            for line in lines
        ]

    def opened(self, leg: int, position: int, computed: int, arrived: int) -> bool:
        """Note that a leg is ready; True when all are."""
        end = self._session.end
        self.reached[leg] = min(position, end)
        self.computed[leg] = max(self.computed.get(leg, 0), min(computed, end))
        self.arrived[leg] = max(self.arrived.get(leg, 0), min(max(position, arrived), end))
        return len(self.reached) == len(self.legs)

    def answered(self) -> None:
        """A token came: every leg has computed all that was sent."""
        self._proved = self._session.end

    @property
    def end(self) -> int:
        """Positions that every leg is to compute."""
        return self._session.end

    @property
    def shown(self) -> int:
        """Positions that all legs together have shown to have computed."""
        return sum(self.computed.get(leg.number, 0) for leg in self.legs)

    @property
    def is_waiting(self) -> bool:
        """Whether some leg has had nothing to do yet."""
        return any(not self.computed.get(leg.number, 0) for leg in self.legs)

    @property
    def has_new(self) -> bool:
        """Whether some leg is about to run for the first time."""
        return any(leg.number not in self._known for leg in self.legs)

    @property
    def whereabouts(self) -> str:
        """How far each leg has shown to be, for people."""
        end = self._session.end
        return "; ".join(
            f"{leg.run.name} is at position {self.computed.get(leg.number, 0)} of {end}"
            for leg in self.legs
        )

    @property
    def lacking(self) -> list[tuple[Leg, int]]:
        """Positions that each leg has yet to compute."""
        end = self._session.end
        return [(leg, end - self.computed.get(leg.number, 0)) for leg in self.legs]

    @property
    def unopened(self) -> list[Leg]:
        return [leg for leg in self.legs if leg.number not in self.reached]

    @property
    def in_hand(self) -> list[tuple[Leg, int]]:
        """Positions that each leg has yet to compute, of those that have all their input."""
        end = self._session.end
        return [
            (leg, lacking)
            for leg, lacking in self.lacking
            if lacking > 0 and self.reached.get(leg.number, 0) >= end
        ]

    def resume(self) -> None:
        """Have each leg, and ourselves, send what the next one lacks."""
        session = self._session
        reached = [self.reached[leg.number] for leg in self.legs]
        if self._is_told:
            for leg, position in zip(self.legs, [*reached[1:], session.wanted], strict=True):
                self._say(leg.run.peer, Resume(session.key, self.epoch, leg.number, position))
        self.is_fed = True
        self._known = frozenset(leg.number for leg in self.legs)
        self.feed(session.batches_from(reached[0]))

    def take_plan(self) -> ChainPlan | None:
        """Return, once, the first chain as it was opened."""
        plan, self.plan = self.plan, None
        return plan and replace(plan, stages=tuple(leg.run for leg in self.legs))

    def feed(self, batches: Iterable[Batch]) -> None:
        edge = self._feed_edge
        if edge is None:
            raise AssertionError("a running generation has a chain")
        for batch in batches:
            for frame in to_frames(batch, edge.stream, self._space):
                self.outbox.append(SendFrame(edge.peer, frame))

    def laggard(self) -> tuple[Leg, Leg | None]:
        """Return the first leg that has not computed all there is, and who may be to blame as well.

        One that has the work in hand is late itself. One that says it never got it accuses the leg
        before it, which says that it sent it: one of the two lies, or the way between them is cut.
        """
        end = self._session.end
        before: Leg | None = None
        for leg in self.legs:
            if self.computed.get(leg.number, 0) < end:
                has_work = self.reached.get(leg.number, 0) >= end
                return leg, None if has_work else before
            before = leg
        return self.legs[-1], None

    def raise_epoch(self, removed: tuple[NodeId, ...]) -> None:
        """Begin a new epoch; peers that are ``removed`` free what they hold."""
        if self._proved:
            for leg in self.legs:
                self.computed[leg.number] = max(self.computed.get(leg.number, 0), self._proved)
            self._proved = 0
        staying = {leg.run.peer for leg in self.legs if leg.number not in self.lost}
        for peer in sorted(set(removed) - staying):
            self._say(peer, Close(self._session.key, self.epoch))
        self.epoch += 1

    def close(self, kept: Sequence[int] = ()) -> None:
        """All is over; each leg is to keep what it holds below these boundaries."""
        names = self.names(kept) if kept else [None] * len(self.legs)
        for peer in sorted({leg.run.peer for leg in self.legs}):
            keep = tuple(
                (leg.number, of_leg)
                for leg, of_leg in zip(self.legs, names, strict=True)
                if leg.run.peer == peer and of_leg is not None
            )
            self._say(peer, Close(self._session.key, self.epoch, keep[:MOST_LEGS]))

    def _draw_streams(self, count: int) -> list[int]:
        drawn: set[int] = set()
        while len(drawn) < count:
            drawn.add(int.from_bytes(self._rng.randbytes(4), "big"))
        return sorted(drawn)

    def _say(self, peer: NodeId, message: Control) -> None:
        self.outbox.append(SendFrame(peer, control_frame(message, self._space)))
