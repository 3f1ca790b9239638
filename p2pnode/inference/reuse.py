"""Beginning a stage with what an earlier session left, and leaving it for the next: a stage's half.

A cache is handed from one session to the next, not copied, where the next goes on from its end: a
chat's next turn needs no memory for two. Where it goes on from the middle, as after a system prompt
that many questions have in common, it gets a copy.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count
from typing import Final

from p2pnode.engine.base import SessionKey
from p2pnode.inference.config import ReuseConfig
from p2pnode.inference.kept import Found, KeptCache, KeptCaches
from p2pnode.inference.prefix_body import Names
from p2pnode.inference.shares import IsProven
from p2pnode.inference.stage import Stage
from p2pnode.inference.stage_work import StageWork
from p2pnode.sansio import NodeId

_SPARE: Final = 2
"""How many times what it used a session must have reserved for a copy to be worth its time. A
guess: an answer without a limit reserves thousands of positions, and has hundreds."""


class Reuse:
    """What the stages of one node leave behind, and begin with.

    Attributes:
        caches: What is kept.
        kv_total: Bytes for the KV caches of all, live and kept.
    """

    def __init__(
        self, config: ReuseConfig, work: StageWork, counters: Counter[str], is_proven: IsProven
    ) -> None:
        self.caches = KeptCaches(config, is_proven)
        self.kv_total = 0
        self._work = work
        self._counters = counters
        self._numbers = count()

    def begin(self, stage: Stage, live: int, now: float) -> None:
        """Begin ``stage`` with what is kept for it; all live sessions take ``live`` bytes.

        Kept caches give way to it.
        """
        found = None if stage.order.terms else self._find(stage)
        is_copy = found is not None and self._is_copy(found)
        if found is not None and not is_copy:
            self.caches.take(found.cache)
        spared = None if found is None else found.cache
        gone = self.caches.make_room(self.kv_total - live, spared)
        if found is None:
            self._let_go(gone, "live sessions need its memory")
            return
        if found.cache in gone:
            gone.remove(found.cache)
            is_copy = False
        self._let_go(gone, "live sessions need its memory")
        if is_copy:
            self.caches.used_again(found.cache, now)
        self._counters["positions reused"] += found.position
        if not is_copy:  # an engine's cache does not shrink
            stage.kv_bytes = max(stage.kv_bytes, found.cache.kv_bytes)
        stage.begin_at(found.position, found.cache.sent)
        self._work.adopt(stage, found.cache.key, is_copy=is_copy)

    def keep(
        self, stage: Stage, names: Names, live: int, bytes_of: Callable[[int], int], now: float
    ) -> None:
        """Keep what ``stage``, which is over, has computed, as far as it has a name.

        All other live sessions take ``live`` bytes; ``bytes_of`` says what a stage like this one
        would take for so many positions. Where it reserved far more than it used, what it used is
        copied to a place of its own.
        """
        marks = tuple(mark for mark in names.marks if mark[0] <= stage.computed)
        order = stage.order
        if not marks or order.terms or (order.sampling is not None and order.sampling.mean):
            self._work.release(stage)
            return
        length, kv_bytes = marks[-1][0], stage.kv_bytes
        fits = bytes_of(length)
        is_alike = stage.model.is_long(length) == stage.model.is_long(order.positions)
        is_copy = is_alike and _SPARE * fits <= kv_bytes
        if is_copy:  # for a moment there are both
            gone = self.caches.make_room(max(0, self.kv_total - live - kv_bytes - fits))
            self._let_go(gone, "live sessions need its memory")
            is_copy = live + kv_bytes + fits <= self.kv_total
        cache = KeptCache(
            key=self._key(),
            owner=stage.requester,
            space=stage.space,
            layers=order.layers,
            out_dtype=order.out_dtype,
            is_long=stage.model.is_long(order.positions),
            length=length,
            sent=[batch for batch in stage.sent if batch.end <= length],
            kv_bytes=fits if is_copy else kv_bytes,
            names=Names(marks, names.is_shared),
            used_at=now,
        )
        self._work.keep(stage, cache.key, length, is_copy=is_copy)
        self._counters["cache kept"] += 1
        self._let_go(self.caches.replaced_by(cache), "another goes on from it")
        self._let_go(self.caches.add(cache, self.kv_total), "too much was kept")

    def share(self, kv_total: int) -> None:
        """Have ``kv_total`` bytes from now on; where that is less, less is kept."""
        self.kv_total = kv_total
        self._let_go(self.caches.fit(kv_total), "less memory is offered")

    def lost(self, key: SessionKey) -> None:
        """The engine has no such cache, or could not hand it on."""
        cache = self.caches.get(key)
        if cache is not None:
            self.caches.take(cache)
            self._let_go([cache], "the engine has it no more")

    def expire(self, now: float) -> None:
        self._let_go(self.caches.expire(now), "nobody used it")

    def forget(self, requester: NodeId) -> None:
        """``requester`` is gone."""
        self._let_go(self.caches.forget(requester), "its requester is gone")

    def keep_own(self, node_id: NodeId) -> None:
        """Let go of what is not this node's own."""
        self._let_go(self.caches.of_others(node_id), "this node rests")

    def clear(self, space: int | None = None) -> None:
        """Let go of all, or of all of one model: its engine is another, or none."""
        self._let_go(self.caches.clear(space), "its layers are gone")

    def _find(self, stage: Stage) -> Found | None:
        return self.caches.find(stage.order, stage.requester, stage.model)

    def _is_copy(self, found: Found) -> bool:
        return found.cache.names.is_shared or found.position < found.cache.length

    def _let_go(self, caches: Iterable[KeptCache], why: str) -> None:
        for cache in caches:
            self._counters[f"kept cache let go: {why}"] += 1
            self._work.let_go(cache.key, cache.space)

    def _key(self) -> SessionKey:
        return b"kept" + next(self._numbers).to_bytes(8, "big")
