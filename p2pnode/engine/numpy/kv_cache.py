"""Keys and values of every session, within one budget of bytes.

A session's cache grows by doubling, so that a token costs no copying on average, and a session
whose length is known can reserve it at once: memory that is reserved but not yet written costs
address space only. The budget counts what is reserved.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from p2pnode.engine.base import Floats, KvBlock, SessionKey
from p2pnode.errors import CapacityError, LocalProtocolError

FIRST_POSITIONS: Final = 64
"""What a session starts with: most prompts with their chat frame need about 40 (a guess)."""

CacheKey: TypeAlias = tuple[SessionKey, int]


@dataclass(slots=True, eq=False)
class Slot:
    """One session's cache in one run of layers.

    A layer's array is [n_kv_heads, capacity, head_dim], so that each head's past is one
    contiguous matrix for BLAS. Rows from ``length`` on are garbage.
    """

    layers: range
    capacity: int = 0
    length: int = 0
    keys: list[Floats] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)


class KVCache:
    """The slots of all sessions.

    Args:
        n_kv_heads: Heads of keys and values in a layer.
        head_dim: Width of a head.
        max_positions: The context length: no slot grows beyond it.
        budget_bytes: All slots together stay within it.
    """

    def __init__(
        self, *, n_kv_heads: int, head_dim: int, max_positions: int, budget_bytes: int
    ) -> None:
        self.budget_bytes = budget_bytes
        self._n_kv_heads = n_kv_heads
        self._head_dim = head_dim
        self._width = n_kv_heads * head_dim
        self._max_positions = max_positions
        self._slots: dict[CacheKey, Slot] = {}
        self._reserved = 0

    def slot(self, session: SessionKey, layers: range, positions: int) -> Slot:
        """Return the session's slot with room for ``positions`` in all; as :meth:`slots`."""
        return self.slots(layers, {session: positions})[0]

    def slots(self, layers: range, ends: Mapping[SessionKey, int]) -> list[Slot]:
        """Return the sessions' slots with room for so many positions each, growing them if need be.

        Raises:
            LocalProtocolError: A session runs other layers from the same first one.
            CapacityError: No room for all of them together; nothing changed for any.
        """
        found = [self._find(session, layers) for session in ends]
        needs = [
            self._need(slot, positions)
            for slot, positions in zip(found, ends.values(), strict=True)
        ]
        promised = sum(needs)
        self._check_budget(promised)
        for session, slot, need in zip(ends, found, needs, strict=True):
            promised -= need
            if need:
                self._grow(slot, ends[session], promised)
            self._slots[session, layers.start] = slot
        return found

    def reserve(self, session: SessionKey, layers: range, positions: int) -> None:
        """Make room for exactly ``positions`` in all; raises as :meth:`slot` does."""
        slot = self._find(session, layers)
        need = self._need(slot, positions)
        self._check_budget(need)
        if need:
            self._resize(slot, positions)
        self._slots[session, layers.start] = slot

    def length(self, session: SessionKey, first_layer: int) -> int:
        """Return how many positions are cached; 0 for a session that is not open."""
        slot = self._slots.get((session, first_layer))
        return slot.length if slot else 0

    def close(self, session: SessionKey) -> None:
        """Free all slots of ``session``."""
        for key in [key for key in self._slots if key[0] == session]:
            slot = self._slots.pop(key)
            self._reserved -= self._cost(len(slot.layers), slot.capacity)

    def close_all(self) -> None:
        for session in {key[0] for key in self._slots}:
            self.close(session)

    def truncate(self, session: SessionKey, length: int) -> None:
        """Forget what lies at ``length`` and beyond, in every slot of ``session``."""
        for key, slot in self._slots.items():
            if key[0] == session:
                slot.length = min(slot.length, length)

    def export(self, session: SessionKey, layers: range, positions: range) -> KvBlock:
        """Copy [layers, 2, positions, kv_heads * head_dim] out; see ``Engine.export_kv``."""
        slot = self._slots.get((session, layers.start))
        if slot is None or slot.layers != layers or not _lies_in(positions, slot.length):
            raise LocalProtocolError(f"no cache of layers {layers} has positions {positions}")
        cut = slice(positions.start, positions.stop)
        block = np.empty((len(layers), 2, len(positions), self._width), np.float32)
        for number, sides in enumerate(zip(slot.keys, slot.values, strict=True)):
            for side, array in enumerate(sides):
                rows = array[:, cut].transpose(1, 0, 2)  # [positions, kv_heads, head_dim]
                block[number, side] = rows.reshape(len(positions), self._width)
        return block

    def append(self, session: SessionKey, layers: range, block: KvBlock) -> None:
        """Take what :meth:`export` returned at the slot's end; raises as :meth:`slot` does."""
        rows = block.shape[2] if block.ndim == 4 else 0
        if block.shape != (len(layers), 2, rows, self._width) or block.dtype != np.float32:
            raise LocalProtocolError(f"a KV block of {block.dtype}{list(block.shape)}")
        if not np.isfinite(block).all():
            raise LocalProtocolError("a KV block that is not finite")
        end = self.length(session, layers.start) + rows
        slot = self.slot(session, layers, end)
        for number, sides in enumerate(zip(slot.keys, slot.values, strict=True)):
            for side, array in enumerate(sides):
                new = block[number, side].reshape(rows, self._n_kv_heads, self._head_dim)
                array[:, slot.length : end] = new.transpose(1, 0, 2)
        slot.length = end

    def reserved_bytes(self) -> int:
        return self._reserved

    def _find(self, session: SessionKey, layers: range) -> Slot:
        slot = self._slots.get((session, layers.start)) or Slot(layers)
        if slot.layers != layers:
            raise LocalProtocolError(f"the session runs layers {slot.layers}, not {layers}")
        return slot

    def _grow(self, slot: Slot, positions: int, promised: int) -> None:
        """Double the slot, or give it what it needs where ``promised`` bytes leave no more room."""
        ample = min(max(FIRST_POSITIONS, 2 * slot.capacity, positions), self._max_positions)
        free = self.budget_bytes - self._reserved - promised
        fits = self._cost(len(slot.layers), ample - slot.capacity) <= free
        self._resize(slot, ample if fits else positions)

    def _need(self, slot: Slot, positions: int) -> int:
        """Return how many bytes more the slot needs for ``positions`` in all."""
        if positions > self._max_positions:
            raise CapacityError(
                f"the context is full: {positions} positions asked for, the model has "
                f"{self._max_positions}",
                hint="Shorten the prompt or ask for fewer tokens.",
            )
        return self._cost(len(slot.layers), max(0, positions - slot.capacity))

    def _check_budget(self, more: int) -> None:
        if self._reserved + more > self.budget_bytes:
            raise CapacityError(
                f"no memory for the session's KV cache: {more} bytes more are needed, "
                f"{self.budget_bytes - self._reserved} of {self.budget_bytes} are free",
                hint="Wait for another session to end, or raise the KV budget.",
            )

    def _resize(self, slot: Slot, capacity: int) -> None:
        slot.keys = [self._moved(old, slot.length, capacity) for old in _olds(slot, slot.keys)]
        slot.values = [self._moved(old, slot.length, capacity) for old in _olds(slot, slot.values)]
        self._reserved += self._cost(len(slot.layers), capacity - slot.capacity)
        slot.capacity = capacity

    def _moved(self, old: Floats | None, length: int, capacity: int) -> Floats:
        new = np.empty((self._n_kv_heads, capacity, self._head_dim), np.float32)
        if old is not None:
            new[:, :length] = old[:, :length]
        return new

    def _cost(self, n_layers: int, positions: int) -> int:
        return n_layers * positions * 2 * self._n_kv_heads * self._head_dim * 4


def _olds(slot: Slot, arrays: list[Floats]) -> list[Floats | None]:
    return [*arrays] if arrays else [None] * len(slot.layers)


def _lies_in(positions: range, length: int) -> bool:
    return positions.step == 1 and 0 <= positions.start <= positions.stop <= length
