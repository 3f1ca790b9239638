"""Whole production nodes on the virtual network, computing with a tiny random model.

What runs here is :class:`~p2pnode.node.core.NodeCore`, the very core that a real node drives; only
the socket, the clock, the engine's duration and the weights are made up.
"""

from collections.abc import Callable
from itertools import chain, repeat
from random import Random
from typing import TypeAlias

from p2pnode.engine.base import Engine, EngineProfile, ModelInfo, StageCost
from p2pnode.engine.numpy.engine import NumpyEngine
from p2pnode.engine.random_model import random_model
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.draws import Draws, Grammars
from p2pnode.inference.events import (
    ComputeRequested,
    GenerationEvent,
    GenerationFailed,
    GenerationFinished,
    PlanRequested,
    TokenProduced,
)
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.running import run_work
from p2pnode.inference.work import Work, WorkResult, forwards_of
from p2pnode.membership.config import simulation as membership_simulation
from p2pnode.node.capacity import Capacity
from p2pnode.node.config import HoldingsConfig, NodeConfig
from p2pnode.node.core import NodeCore
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
from p2pnode.node.origin import Origin
from p2pnode.node.picture import missing_layers
from p2pnode.sansio import Address, NodeId
from p2pnode.testing.links import Link
from p2pnode.testing.network import VirtualNetwork
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.identity import Identity

SECRET = bytes(range(32))
PORT = 4747
MEASURING = 0.1
"""Seconds a measurement takes."""
LOADING = 0.2
"""Seconds a node takes to load its layers."""

TOGETHER = 0.75
"""What each further row of a step of several sessions takes, where the first takes 1: as measured
of ggml with AVX2, whose eight rows take 6.2 times what one does."""

Computer: TypeAlias = Callable[[ComputeRequested], None]
"""Takes a node's work in place of its engine."""


class Swarm:
    """Some nodes of one swarm.

    Attributes:
        network: Where they are attached.
        nodes: By name.
        n_layers: Layers of the random model.
        answers: Every event of every answer: (moment, who asked, event).
        on_token: Called with each token as it is shown, and the name of the node that asked.
        grammars: Compiles schemas for all of them; None where no answer follows one.
    """

    def __init__(
        self,
        seed: int,
        link: Link | None = None,
        *,
        n_layers: int = 6,
        d_model: int = 32,
        n_heads: int = 4,
        n_kv_heads: int = 2,
        transport: TransportConfig | None = None,
        layer_seconds: float = 0.0005,
        kv_bytes: int = 512 << 20,
        keep_story: bool = False,
    ) -> None:
        self.network = VirtualNetwork[Address, NodeEvent](seed, link, keep_story=keep_story)
        self.nodes: dict[str, NodeCore] = {}
        self.n_layers = n_layers
        self.on_token: Callable[[str, TokenProduced], None] = lambda name, token: None
        self.answers: list[tuple[float, str, GenerationEvent]] = []
        self.grammars: Grammars | None = None
        self._draws: dict[tuple[NodeId, int], Draws] = {}
        self._ended: set[tuple[str, int]] = set()
        self._seed = seed
        self._shape = (n_layers, d_model, n_heads, n_kv_heads)
        self._transport = transport or TransportConfig.simulation()
        self._layer_seconds = layer_seconds
        self._kv_bytes = kv_bytes
        self._engines: dict[tuple[NodeId, int], Engine] = {}  # by node and space
        self._models: dict[int, int] = {}  # what each space was drawn from
        self._computers: dict[NodeId, Computer] = {}
        self._costs: dict[NodeId, StageCost] = {}
        self._busy_until: dict[NodeId, float] = {}
        self._numerics: dict[NodeId, str | None] = {}
        self._places: dict[str, int] = {}
        self._starts = 0

    # The nodes

    def add(
        self,
        name: str,
        layers: range | None = None,
        *,
        max_layers: int | None = None,
        secret: bytes = SECRET,
        model_seed: int = 5,
        holds: bool = True,
        key: str | None = None,
        cost: StageCost | None = None,
        computer: Computer | None = None,
        numerics: str | None = None,
        capacity: Capacity | None = None,
        inference: InferenceConfig | None = None,
    ) -> NodeCore:
        """Start a node that knows nobody yet; adding a name again is the machine started anew.

        Args:
            name: The machine, and its place on the network.
            layers: What it holds; None to let it choose.
            max_layers: Most it chooses.
            secret: That of its swarm.
            model_seed: Draws the model.
            holds: Whether it holds layers at all.
            key: What its identity is made of, and what it is called; its name unless told.
            cost: What it says its layers cost; the truth unless told.
            computer: Takes its work in place of its engine; :meth:`compute` does it all the same.
            numerics: How it says that it computes, though all compute alike; that of the random
                model unless told.
            capacity: What it has memory for; all unless told.
            inference: How it answers and computes; as nodes do unless told.
        """
        self._starts += 1
        key = key or name
        config = NodeConfig(
            name=key,
            kv_bytes=self._kv_bytes,
            transport=self._transport,
            membership=membership_simulation(),
            holdings=HoldingsConfig(layers=layers, max_layers=max_layers),
            inference=inference or InferenceConfig(),
        )
        address = self.address(name)
        identity = Identity(key.encode().ljust(32, b".")[:32])
        origin = Origin(identity, secret, self._starts, (address,))
        rng = Random(f"{self._seed} {name} {self._starts}")
        node = NodeCore(config, origin, rng, self.network.now)
        self.nodes[name] = node
        self._forget(node.node_id)
        if computer is not None:
            self._computers[node.node_id] = computer
        self._costs[node.node_id] = cost or self._true_cost()
        self._numerics[node.node_id] = numerics
        self.network.attach(address, node, on_event=self._hearer(name, node))
        model = self.model(model_seed)
        self.network.call(
            address, lambda now: node.use_model(model, hold=holds, now=now, capacity=capacity)
        )
        return node

    def _forget(self, node_id: NodeId) -> None:
        """A machine starts anew: its engines, and what they were about, are no more."""
        for held in [held for held in self._engines if held[0] == node_id]:
            del self._engines[held]
        self._busy_until.pop(node_id, None)
        self._computers.pop(node_id, None)

    def model(self, seed: int = 5) -> ModelInfo:
        """Return what the model is that ``seed`` draws."""
        info = self._engine(seed, range(1)).info
        self._models[info.space_hash32] = seed
        return info

    def introduce(self, *names: str) -> None:
        """Let every node but the first call the first."""
        first, *others = names
        for name in others:
            self.call(name, lambda node, now: node.connect(self.address(first), now))

    def kill(self, name: str) -> None:
        """End a node without a word."""
        self.network.detach(self.address(name))

    def address(self, name: str) -> Address:
        """Return where ``name`` listens; it keeps the place when it starts anew."""
        number = self._places.setdefault(name, len(self._places) + 1)
        return (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", PORT)

    def call(self, name: str, command: Callable[[NodeCore, float], object]) -> None:
        node = self.nodes[name]

        def run(now: float) -> None:
            command(node, now)

        self.network.call(self.address(name), run)

    def is_ready(self) -> bool:
        """Whether every living node sees all layers served."""
        living = set(self.network.addresses())
        return all(
            not missing_layers(node)
            for name, node in self.nodes.items()
            if self.address(name) in living
        )

    # Answers

    def generate(self, name: str, request: GenerationRequest) -> int:
        """Let ``name`` ask; return the answer's number."""
        numbers: list[int] = []
        self.call(name, lambda node, now: numbers.append(node.generate(request, now)))
        return numbers[0]

    def tokens(self, name: str, generation: int) -> list[int]:
        """Return the tokens shown so far, in the order in which they were shown."""
        return [
            event.token
            for _, asker, event in self.answers
            if asker == name and isinstance(event, TokenProduced) and event.generation == generation
        ]

    def ended(self, name: str, generation: int) -> bool:
        return (name, generation) in self._ended

    # Computing

    def compute(self, name: str, request: ComputeRequested, *, delay: float = 0.0) -> None:
        """Let the engine of ``name`` do its work, and give the result ``delay`` seconds late.

        A machine does one thing after the other, each in its own time.
        """
        node_id, now = self.nodes[name].node_id, self.network.now
        key = node_id, request.space
        seconds = self._seconds(request.work)
        clock = chain((0.0,), repeat(seconds))  # first read before the engine's part
        draws = self._draws.setdefault(key, Draws(self.grammars))
        result = run_work(self._engines[key], request.work, lambda: next(clock), draws)
        done = max(now, self._busy_until.get(node_id, now)) + seconds
        self._busy_until[node_id] = done
        self.finish(name, request, result, delay=delay + done - now)

    def finish(
        self, name: str, request: ComputeRequested, result: WorkResult, *, delay: float = 0.0
    ) -> None:
        """Give ``name`` the result of a job, unless the machine has started anew by then."""
        node, job, space = self.nodes[name], request.job, request.space
        self._later(name, node, delay, lambda now: node.compute_finished(job, space, result, now))

    def _seconds(self, work: Work) -> float:
        """Return what the engine takes for it."""
        parts = forwards_of(work)
        if not parts:
            return 0.0
        rows = sum(batch.rows for part in parts for batch in part.batches)
        further = rows - 1 if len(parts) == 1 else (rows - 1) * TOGETHER
        return (1 + further) * len(parts[0].layers) * self._layer_seconds

    # The world around the cores

    def _hearer(self, name: str, node: NodeCore) -> Callable[[NodeEvent, float], None]:
        def hear(event: NodeEvent, now: float) -> None:
            match event:
                case ComputeRequested() if node.node_id in self._computers:
                    self._computers[node.node_id](event)
                case ComputeRequested():
                    self.compute(name, event)
                case PlanRequested(number, ticket, task):
                    found = task()
                    self._later(name, node, 0.0, lambda at: node.planned(number, ticket, found, at))
                case PlacementRequested(space, ticket, asked):
                    placed = asked()
                    self._later(name, node, 0.0, lambda at: node.placed(space, ticket, placed, at))
                case LoadRequested(space, layers):
                    self._load(name, node, space, layers)
                case UnloadRequested(space):
                    self._engines.pop((node.node_id, space), None)
                case MeasureRequested(space):
                    cost = self._costs[node.node_id]
                    self._later(name, node, MEASURING, lambda now: node.measured(space, cost, now))
                case Noted() | PeerReached() | FrameWaits() | Departed() | Unloaded():
                    pass
                case _:
                    self.answers.append((self.network.now, name, event))
                    if isinstance(event, TokenProduced):
                        self.on_token(name, event)
                    elif isinstance(event, GenerationFinished | GenerationFailed):
                        self._ended.add((name, event.generation))

        return hear

    def _load(self, name: str, node: NodeCore, space: int, layers: range) -> None:
        engine = self._engine(self._models[space], layers)
        known = EngineProfile(
            self._numerics[node.node_id] or engine.numerics,
            engine.device,
            self._costs[node.node_id],
            engine.kv_bytes_per_token_layer,
            kv_sizes=engine.kv_sizes,
        )

        def loaded(now: float) -> None:
            self._engines[node.node_id, space] = engine
            node.layers_loaded(space, layers, known, now)

        self._later(name, node, LOADING, loaded)

    def _true_cost(self) -> StageCost:
        layer_us = round(self._layer_seconds * 1e6)
        return StageCost(0, layer_us, 0, layer_us * 1000)

    def _engine(self, model_seed: int, layers: range) -> NumpyEngine:
        n_layers, d_model, n_heads, n_kv_heads = self._shape
        return random_model(
            model_seed,
            n_layers=n_layers,
            d_model=d_model,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            layers=layers,
        )

    def _later(
        self, name: str, node: NodeCore, delay: float, command: Callable[[float], None]
    ) -> None:
        address = self.address(name)

        def act(now: float) -> None:
            if self.nodes[name] is node and address in self.network.addresses():
                self.network.call(address, command)

        self.network.after(delay, act)
