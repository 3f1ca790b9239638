"""What this node's own answers began with: the requester's half of reusing KV caches.

A record says which tokens an answer was made of and in which batches they went through the chain.
A new prompt that begins like one is cut like it, as far as they agree, so that whatever stage still
holds that cache goes on from it. A record is no promise: a stage may hold less, or nothing.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from p2pnode.inference.config import ReuseConfig
from p2pnode.inference.prefix_names import Scope, named
from p2pnode.sansio import NodeId

Holder: TypeAlias = tuple[NodeId, range]
"""A peer, and the layers that it ran."""


@dataclass(frozen=True, slots=True)
class Record:
    """An answer that ended well.

    Attributes:
        root: Of its model.
        activations: How its hidden states travelled.
        is_long: Whether it was computed as long sessions are.
        ids: Its tokens, those of the prompt first, as far as every stage computed them.
        ends: Where its batches ended; the last at the end of ``ids``.
        holders: Who ran which layers, in order.
    """

    root: bytes
    activations: str
    is_long: bool
    ids: tuple[int, ...]
    ends: tuple[int, ...]
    holders: tuple[Holder, ...]

    @property
    def kind(self) -> tuple[bytes, str, bool]:
        """What two answers have in common that may begin alike."""
        return self.root, self.activations, self.is_long


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a prompt has in common with a record.

    Attributes:
        ends: Where the batches end that both have; the last has a name at the stages.
        holders: Who may hold the cache of it.
    """

    ends: tuple[int, ...]
    holders: tuple[Holder, ...]

    @property
    def positions(self) -> int:
        return self.ends[-1]


class Prefixes:
    """The records of a node, the least recently used first.

    Invariant: there are at most ``most_records`` of at most ``most_positions`` together; none is
    the beginning of another in the same batches and by the same holders.
    """

    def __init__(self, config: ReuseConfig, scope: Scope) -> None:
        """``scope`` is what their boundaries are named with."""
        self.scope = scope
        self._config = config
        self._records: OrderedDict[int, Record] = OrderedDict()
        self._packed: dict[int, NDArray[np.uint32]] = {}
        self._named: dict[int, list[int]] = {}
        self._numbers = count()
        self.positions = 0

    def __len__(self) -> int:
        return len(self._records)

    def note(self, record: Record) -> None:
        """Remember an answer; what it goes on from is remembered with it."""
        for number, known in list(self._records.items()):
            if _goes_on_from(record, known):
                self._drop(number)
        number = next(self._numbers)
        self._records[number] = record
        self._packed[number] = _packed(record.ids)
        self._named[number] = named(record.ends)
        self.positions += len(record.ids)
        config = self._config
        while len(self._records) > config.most_records or self.positions > config.most_positions:
            self._drop(next(iter(self._records)))

    def match(self, kind: tuple[bytes, str, bool], prompt: Sequence[int]) -> Beginning | None:
        """Return the longest beginning that ``prompt`` has in common with a record.

        At least one token is left to compute: the first token of the answer is drawn from it.
        """
        best: tuple[int, int] | None = None
        asked = _packed(prompt)
        for number, record in self._records.items():
            if record.kind != kind:
                continue
            most = min(_common(asked, self._packed[number]), len(prompt) - 1)
            at = bisect_right(self._named[number], most)
            if at and (best is None or self._named[number][at - 1] >= best[0]):
                best = self._named[number][at - 1], number  # of equals the newest
        if best is None:
            return None
        end, number = best
        self._records.move_to_end(number)
        record = self._records[number]
        return Beginning(record.ends[: bisect_right(record.ends, end)], record.holders)

    def forget(self, peer: NodeId) -> None:
        """``peer`` is gone, and what it held with it."""
        for number, record in self._records.items():
            if any(holder == peer for holder, _ in record.holders):
                others = tuple(one for one in record.holders if one[0] != peer)
                self._records[number] = replace(record, holders=others)

    def _drop(self, number: int) -> None:
        del self._packed[number], self._named[number]
        self.positions -= len(self._records.pop(number).ids)


def _goes_on_from(record: Record, known: Record) -> bool:
    """Whether whoever held ``known`` holds it no more but as the beginning of ``record``."""
    count = len(known.ends)
    return (
        known.kind == record.kind
        and set(known.holders) <= set(record.holders)
        and known.ends == record.ends[:count]
        and known.ids == record.ids[: len(known.ids)]
    )


def _packed(ids: Sequence[int]) -> NDArray[np.uint32]:
    return np.asarray(ids, np.uint32)


def _common(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> int:
    """Return how many ids both begin with."""
    count = min(len(one), len(other))
    differs = one[:count] != other[:count]  # [count]
    return int(differs.argmax()) if differs.any() else count
