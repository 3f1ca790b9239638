"""The caches that a stage keeps of sessions that are over, for sessions that begin alike.

Pure bookkeeping: bytes, names, and who goes first. A cache belongs to the requester that it was
computed for; only where requesters agreed on a scope does it serve each of them. Nothing here may
keep a live session waiting: whoever needs the memory takes it (:meth:`KeptCaches.make_room`).
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from p2pnode.engine.base import ModelInfo, SessionKey
from p2pnode.inference.activations import Batch
from p2pnode.inference.config import ReuseConfig
from p2pnode.inference.messages import Open
from p2pnode.inference.prefix_body import Names
from p2pnode.inference.shares import IsProven, Parties, everybody
from p2pnode.sansio import NodeId


@dataclass(slots=True)
class KeptCache:
    """What one leg of a session left behind.

    Attributes:
        key: Names it to the engine.
        owner: For whom it was computed.
        space: Of its model.
        layers: What was run.
        out_dtype: What it passed on was sent as.
        is_long: Whether it was computed as long sessions are.
        length: Positions that the engine's cache has.
        sent: The batches that it passed on; a successor of a later stage is fed from them.
        kv_bytes: Memory that it takes, these included.
        names: What boundaries are called, none beyond ``length``.
        used_at: When it was kept, or last copied from.
        marks: The names with their positions.
    """

    key: SessionKey
    owner: NodeId
    space: int
    layers: range
    out_dtype: str
    is_long: bool
    length: int
    sent: list[Batch]
    kv_bytes: int
    names: Names
    used_at: float
    marks: frozenset[tuple[int, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self.marks = frozenset(self.names.marks)

    @property
    def keys(self) -> set["_Key"]:
        """What it is found by."""
        return {_key(self.names, self.owner, name) for _, name in self.marks}

    def fits(self, order: Open, model: ModelInfo) -> bool:
        """Whether what ``order`` asks for is computed and passed on as this was."""
        space, is_long = model.space_hash32, model.is_long(order.positions)
        asked = space, order.layers, order.out_dtype, is_long
        return (self.space, self.layers, self.out_dtype, self.is_long) == asked


class Found(NamedTuple):
    """A cache that begins as an order does, and up to where."""

    cache: KeptCache
    position: int


_Key: TypeAlias = tuple[NodeId | None, bytes]


class KeptCaches:
    """The caches of one node, the least recently used first.

    Invariants: ``used`` is what all take; there are at most ``most_kept``, of at most the share of
    the KV memory; each name leads to every cache that has it, in the order of keeping.
    """

    def __init__(self, config: ReuseConfig, is_proven: IsProven = everybody) -> None:
        self._config = config
        self._is_proven = is_proven
        self._caches: dict[SessionKey, KeptCache] = {}
        self._by_name: dict[_Key, dict[SessionKey, None]] = {}
        self.used = 0

    def __len__(self) -> int:
        return len(self._caches)

    def __iter__(self) -> Iterator[KeptCache]:
        return iter(self._caches.values())

    def get(self, key: SessionKey) -> KeptCache | None:
        return self._caches.get(key)

    def find(self, order: Open, requester: NodeId, model: ModelInfo) -> Found | None:
        """Return the cache that covers most of what ``order`` names, the newest of equals."""
        names = order.prefix
        if names is None or (order.sampling is not None and order.sampling.mean):
            return None
        for position, name in reversed(names.marks):
            if position >= order.positions:
                continue
            for key in reversed(self._by_name.get(_key(names, requester, name), {})):
                cache = self._caches[key]
                if cache.fits(order, model) and (position, name) in cache.marks:
                    return Found(cache, position)
        return None

    def replaced_by(self, cache: KeptCache) -> list[KeptCache]:
        """Let go of those that ``cache`` serves as well as: it goes on from their ends."""
        return self._drop(
            one
            for one in self._caches.values()
            if one.owner == cache.owner
            and one.names.is_shared == cache.names.is_shared
            and (one.space, one.layers, one.out_dtype, one.is_long)
            == (cache.space, cache.layers, cache.out_dtype, cache.is_long)
            and one.names.marks[-1] in cache.marks
        )

    def add(self, cache: KeptCache, kv_total: int) -> list[KeptCache]:
        """Keep ``cache``; return those that are not kept any more for it, itself perhaps."""
        self._caches[cache.key] = cache
        self.used += cache.kv_bytes
        for key in cache.keys:
            self._by_name.setdefault(key, {})[cache.key] = None
        return self.fit(kv_total)

    def fit(self, kv_total: int) -> list[KeptCache]:
        """Let go of what is too many, or takes more than its share of ``kv_total`` bytes."""
        gone: list[KeptCache] = []
        most = int(self._config.share * kv_total)
        while self._caches and (len(self._caches) > self._config.most_kept or self.used > most):
            gone.append(self._drop_one())
        return gone

    def used_again(self, cache: KeptCache, now: float) -> None:
        """Somebody began with ``cache``, and it stays."""
        del self._caches[cache.key]
        self._caches[cache.key] = cache
        cache.used_at = now

    def take(self, cache: KeptCache) -> None:
        """``cache`` is kept no more."""
        del self._caches[cache.key]
        self.used -= cache.kv_bytes
        for key in cache.keys:
            self._by_name[key].pop(cache.key)
            if not self._by_name[key]:
                del self._by_name[key]

    def make_room(self, free: int, spared: KeptCache | None = None) -> list[KeptCache]:
        """Let go of some until all take no more than ``free`` bytes; ``spared`` goes last."""
        gone: list[KeptCache] = []
        while self.used > free and self._caches:
            gone.append(self._drop_one(spared))
        return gone

    def forget(self, owner: NodeId) -> list[KeptCache]:
        """``owner`` is gone; what it shared stays."""
        return self._drop(
            one for one in self._caches.values() if one.owner == owner and not one.names.is_shared
        )

    def clear(self, space: int | None = None) -> list[KeptCache]:
        """Let go of all, or of all of one model."""
        return self._drop(one for one in self._caches.values() if space in {None, one.space})

    def of_others(self, node_id: NodeId) -> list[KeptCache]:
        """Let go of all but what was computed for ``node_id``."""
        return self._drop(one for one in self._caches.values() if one.owner != node_id)

    def expire(self, now: float) -> list[KeptCache]:
        """Let go of what nobody used for too long."""
        keep_for = self._config.keep_for
        return self._drop(one for one in self._caches.values() if now >= one.used_at + keep_for)

    @property
    def due(self) -> float:
        """When the first is to be let go of; infinity where there is none."""
        first = next(iter(self._caches.values()), None)
        return math.inf if first is None else first.used_at + self._config.keep_for

    def _drop(self, caches: Iterable[KeptCache]) -> list[KeptCache]:
        gone = list(caches)
        for cache in gone:
            self.take(cache)
        return gone

    def _drop_one(self, spared: KeptCache | None = None) -> KeptCache:
        """Let go of the least recently used of whoever has most.

        Who keeps much loses its own first. All that are not proven count as one.
        """
        caches = [one for one in self._caches.values() if one is not spared]
        caches = caches or list(self._caches.values())
        parties = Parties((one.owner for one in caches), self._is_proven)
        held = Counter[NodeId]()
        for one in caches:
            held[parties.of(one.owner)] += one.kv_bytes
        most = max(held.values())
        goes = next(one for one in caches if held[parties.of(one.owner)] == most)
        self.take(goes)
        return goes


def _key(names: Names, owner: NodeId, name: bytes) -> _Key:
    return None if names.is_shared else owner, name
