"""The engine that computes with ggml: weights as a GGUF stores them, on the CPU or a GPU."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np

from p2pnode.engine.base import (
    EXACT,
    Array,
    Floats,
    KvSizes,
    ModelInfo,
    SessionKey,
    short_numerics,
)
from p2pnode.engine.ggml.backend import Backend
from p2pnode.engine.ggml.cache_places import data_offset
from p2pnode.engine.ggml.ends import Embedding, Head
from p2pnode.engine.ggml.slot import CELLS, GgmlSlot
from p2pnode.engine.ggml.stability import unstable_products
from p2pnode.engine.ggml.step import NextRow, Part, StepGraph
from p2pnode.engine.ggml.weights import Weights
from p2pnode.engine.kv_slots import KvSlots
from p2pnode.engine.model_config import ModelConfig
from p2pnode.engine.slotted import SlottedEngine
from p2pnode.errors import LocalProtocolError, ModelChangedError

MOST_GRAPHS: Final = 24
"""Graphs kept on a device: one is some 400 kB and what lies between its layers; building one takes
2 to 4 ms for 30 layers, and a session needs another every 256 tokens."""


MOST_AT_ONCE: Final = 256
"""Rows of a long batch that are computed at once: what lies between layers stays in the cache, and
no row looks at those far behind it. Of 64 to 512 this was the fastest (measured)."""


@dataclass(frozen=True)
class Share:
    """Consecutive layers that one device holds."""

    backend: Backend
    layers: range
    weights: Weights

    @cached_property
    def is_movable(self) -> bool:
        """Whether a graph can be told where the caches of other sessions lie."""
        if not self.backend.is_cpu:
            return False
        return data_offset(self.backend.ggml, self.weights[min(self.weights.products)]) is not None


class GgmlEngine(SlottedEngine[GgmlSlot]):
    """Runs layers of any architecture that is known; see :class:`p2pnode.engine.base.Engine`.

    Args:
        info: What the model is.
        config: Its shape.
        shares: Which device holds which of the layers, in order.
        embedding: With the first layer.
        head: With the last layer.
        kv_budget_bytes: The most memory that all sessions' KV caches may take.
        numerics: Names the arithmetic.
        threads: Of the CPU.
        damage: What became of the weights since they were loaded, from another thread: a mapped
            file may have changed faster than it could be copied. Nothing, as a rule.
        close: Gives back what the shares, embedding and head are made of.
    """

    def __init__(
        self,
        info: ModelInfo,
        config: ModelConfig,
        shares: Sequence[Share],
        *,
        embedding: Embedding | None,
        head: Head | None,
        kv_budget_bytes: int,
        numerics: str,
        threads: int,
        damage: Sequence[str],
        close: Callable[[], None],
    ) -> None:
        kv_dim = config.n_kv_heads * config.head_dim
        make = partial(
            GgmlSlot,
            devices=[(share.backend, share.layers) for share in shares],
            kv_dim=kv_dim,
            is_long=config.is_long,
            moved=self._moved,
        )
        slots = KvSlots(
            make,
            width=kv_dim,
            dtype=np.float16,
            max_positions=config.context_length,
            budget_bytes=kv_budget_bytes,
            sizes=EXACT if all(share.backend.is_cpu for share in shares) else KvSizes(CELLS),
        )
        super().__init__(
            info,
            range(shares[0].layers.start, shares[-1].layers.stop),
            slots,
            numerics=short_numerics(numerics),
            device=_name_devices(shares, threads),
            weight_bytes=sum(share.weights.bytes for share in shares),
        )
        self._config = config
        self._shares = shares
        self._unstable = [unstable_products(share.backend, share.weights) for share in shares]
        self._graphs: list[Recent[StepGraph]] = [Recent(MOST_GRAPHS) for _ in shares]
        self._embedding = embedding
        self._head = head
        self._damage = damage
        self._close = close
        self._threads = threads
        self._scale = np.float32(
            math.sqrt(config.d_model) if config.architecture.scales_embedding else 1.0
        )

    def forward(
        self, session: SessionKey, layers: range, batches: Sequence[Array], start: int
    ) -> list[Floats]:
        slot = self._slots.known(session, layers)
        step = None if slot is None or slot.length != start or len(batches) != 1 else slot.step
        if slot is None or step is None or len(batches[0]) != 1 or not step.fits(start):
            return super().forward(session, layers, batches, start)
        # As nearly every token's. A stage's weights went through the caches since the row before,
        # so each line of code that runs here is waited for.
        row = batches[0]
        x = step.run(row if self._is_hidden(row) else self._enter(row, layers), start)
        self._check_intact()
        slot.length += 1
        return [x]

    def use_threads(self, count: int) -> None:
        """Compute with so many threads of the CPU from now on."""
        self._threads = count
        for backend in {id(share.backend): share.backend for share in self._shares}.values():
            if backend.is_cpu:
                backend.use_threads(count)
        self.device = _name_devices(self._shares, count)

    def settle(self) -> None:
        self.use_threads(self._threads)

    def tell_spent(self, heard: Callable[[float], None] | None) -> None:
        """Let somebody hear the seconds of CPU that each graph takes of this thread; or nobody."""
        for share in self._shares:
            share.backend.spent = heard

    def shut(self) -> None:
        super().shut()
        for graphs in self._graphs:
            graphs.clear()
        self._close()

    def _embed(self, ids: Array) -> Floats:
        if self._embedding is None:
            raise LocalProtocolError("the first layer is held without the embedding")
        rows = self._embedding.rows(ids)  # [tokens, d_model]
        if self._scale != 1:
            rows *= self._scale
        return rows

    def _run(self, slot: GgmlSlot, layers: range, states: list[Floats]) -> list[Floats]:
        found: list[Floats] = []
        for state in states:
            if len(state) <= MOST_AT_ONCE:
                found += self._run_together([slot], layers, [state])
                continue
            pieces = np.split(state, range(MOST_AT_ONCE, len(state), MOST_AT_ONCE))
            parts = [self._run_together([slot], layers, [piece])[0] for piece in pieces]
            found.append(np.concatenate(parts))
        return found

    def _run_together(
        self, slots: Sequence[GgmlSlot], layers: range, states: Sequence[Floats]
    ) -> list[Floats]:
        if len({slot.is_long for slot in slots}) > 1:  # they turn by other divisors
            pairs = zip(slots, states, strict=True)
            return [self._run_together([slot], layers, [state])[0] for slot, state in pairs]
        # In an order of their own, so that such parts find their graph again.
        given = [Part(slot, len(state)) for slot, state in zip(slots, states, strict=True)]
        order = sorted(range(len(given)), key=lambda number: _shape(given[number]))
        parts = [given[number] for number in order]
        x = states[0] if len(states) == 1 else np.concatenate([states[number] for number in order])
        starts = [part.slot.length for part in parts]
        for share, unstable, graphs in zip(self._shares, self._unstable, self._graphs, strict=True):
            run = range(max(layers.start, share.layers.start), min(layers.stop, share.layers.stop))
            if run:
                x = self._graph(share, unstable, graphs, run, parts).run(x, starts)
        self._check_intact()
        if len(parts) == 1:
            self._foresee(parts[0], layers)
            slots[0].length += len(x)
            return [x]
        ends = np.cumsum([part.rows for part in parts])
        found = dict(zip(order, np.split(x, ends[:-1]), strict=True))  # [rows, d_model] each
        for part in parts:
            part.slot.length += part.rows
        return [found[number] for number in range(len(slots))]

    def _foresee(self, part: Part, layers: range) -> None:
        """Keep what ran the one row of a part: it runs the next one too."""
        if part.rows == 1 and len(self._shares) == 1:
            graph = self._graph(self._shares[0], self._unstable[0], self._graphs[0], layers, [part])
            part.slot.step = NextRow(graph, min(part.cells, part.slot.capacity))

    def _fill_logits(self, hidden: Floats, logits: Floats) -> None:
        if self._head is None:
            raise LocalProtocolError("the last layer is held without the head")
        self._head.fill(hidden, logits)
        self._check_intact()

    def _fill_normed(self, hidden: Floats, rows: Floats) -> None:
        if self._head is None:
            raise LocalProtocolError("the last layer is held without the head")
        self._head.fill_normed(hidden, rows)
        self._check_intact()

    def _check_intact(self) -> None:
        """Refuse what was computed with other weights than those that were loaded."""
        if self._damage:
            raise ModelChangedError("the model's file changed while it was computed with")

    def _graph(
        self,
        share: Share,
        unstable: frozenset[str],
        graphs: "Recent[StepGraph]",
        layers: range,
        parts: Sequence[Part],
    ) -> StepGraph:
        is_for_any = len(parts) > 1 and share.is_movable
        names = [0 if is_for_any else part.slot.version for part in parts]
        shapes = [(part.rows, part.cells, part.slot.is_long) for part in parts]
        key = (layers, *((name, *shape) for name, shape in zip(names, shapes, strict=True)))
        graph = graphs.find(key)
        if graph is None:
            backend, config = share.backend, self._config
            graph = StepGraph(
                backend, config, share.weights, layers, parts, unstable, is_for_any=is_for_any
            )
            graphs.keep(key, graph)
        graph.bind(parts)
        return graph

    def _moved(self, version: int) -> None:
        """Forget the graphs over a session's tensors that are no more."""
        for graphs in self._graphs:
            graphs.drop(lambda key: any(part[0] == version for part in key[1:]))


def _shape(part: Part) -> tuple[int, int, int]:
    return part.cells, part.rows, part.slot.version


def _name_devices(shares: Sequence[Share], threads: int) -> str:
    """Say what computes, for people; ``threads`` are the CPU's."""
    names = []
    for share in shares:
        device = share.backend.device
        is_cpu = share.backend.is_cpu
        names.append(f"cpu x{threads}" if is_cpu else f"{device.name} {device.description}")
    return " and ".join(dict.fromkeys(names))


class _Closes(Protocol):
    def close(self) -> None: ...


ClosesT = TypeVar("ClosesT", bound=_Closes)


class Recent(Generic[ClosesT]):
    """The things used last, so many at the most; what goes is closed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[Hashable, ...], ClosesT] = OrderedDict()

    def find(self, key: tuple[Hashable, ...]) -> ClosesT | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, key: tuple[Hashable, ...], thing: ClosesT) -> None:
        self._kept[key] = thing
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)[1].close()

    def drop(self, is_gone: Callable[[tuple[Any, ...]], bool]) -> None:
        for key in [key for key in self._kept if is_gone(key)]:
            self._kept.pop(key).close()

    def clear(self) -> None:
        self.drop(lambda _: True)
