"""The KV caches of every session, within one budget of bytes, whatever an engine keeps them in.

A session's cache grows by doubling, so that a token costs no copying on average, and a session
whose length is known can reserve it at once. The budget counts what is reserved.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import EXACT, KvBlock, KvSizes, SessionKey
from p2pnode.errors import CapacityError, LocalProtocolError

FIRST_POSITIONS: Final = 64
"""What a session starts with: most prompts with their chat frame need about 40 (a guess)."""

CacheKey: TypeAlias = tuple[SessionKey, int]


class Slot(ABC):
    """One session's cache in one run of layers.

    Attributes:
        layers: Which.
        capacity: Positions that were asked for; there is room for them.
        length: Positions that are cached; what lies beyond is garbage.
    """

    def __init__(self, layers: range) -> None:
        self.layers = layers
        self.capacity = 0
        self.length = 0

    @abstractmethod
    def resize(self, capacity: int) -> None:
        """Make room for ``capacity`` positions, more than there are; what is cached stays.

        Raises:
            CapacityError: There is no such memory; nothing changed.
        """

    @abstractmethod
    def export(self, positions: range) -> KvBlock:
        """Copy cached positions out: [layers, 2, positions, kv_heads * head_dim]."""

    @abstractmethod
    def put(self, block: KvBlock) -> None:
        """Write a block, for which there is room, behind what is cached."""

    def truncate(self, length: int) -> None:
        """Forget what lies at ``length`` and beyond."""
        self.length = min(self.length, length)

    @abstractmethod
    def free(self) -> None:
        """Give the memory back; the slot is of no more use."""


SlotT = TypeVar("SlotT", bound=Slot)


class KvSlots(Generic[SlotT]):
    """The slots of all sessions.

    Args:
        make: Makes an empty slot of a run of layers.
        width: Numbers that a position has for keys, and for values: kv_heads * head_dim.
        dtype: What they are handed out as, and stored as.
        stored_bytes: Bytes of a number as stored, where numpy has no such type.
        sizes: What sizes slots come in; the budget counts these.
        max_positions: The context length: no slot grows beyond it.
        budget_bytes: All slots together stay within it.
    """

    def __init__(
        self,
        make: Callable[[range], SlotT],
        *,
        width: int,
        dtype: npt.DTypeLike,
        max_positions: int,
        budget_bytes: int,
        stored_bytes: int | None = None,
        sizes: KvSizes = EXACT,
    ) -> None:
        self.budget_bytes = budget_bytes
        self.sizes = sizes
        size = np.dtype(dtype).itemsize if stored_bytes is None else stored_bytes
        self.bytes_per_token_layer = 2 * width * size  # keys and values
        self._make = make
        self._width = width
        self._dtype = np.dtype(dtype)
        self._max_positions = max_positions
        self._slots: dict[CacheKey, SlotT] = {}
        self._reserved = 0

    def slot(self, session: SessionKey, layers: range, positions: int) -> SlotT:
        """Return the session's slot with room for ``positions`` in all; as :meth:`slots`."""
        known = self.known(session, layers)
        if known is not None and positions <= known.capacity:
            return known
        return self.slots(layers, {session: positions})[0]

    def known(self, session: SessionKey, layers: range) -> SlotT | None:
        """Return the slot that the session has in these layers, if it has one."""
        slot = self._slots.get((session, layers.start))
        return slot if slot is not None and slot.layers == layers else None

    def slots(self, layers: range, ends: Mapping[SessionKey, int]) -> list[SlotT]:
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
            if ends[session] > slot.capacity:
                self._grow(slot, ends[session], promised)
            self._slots[session, layers.start] = slot
        return found

    def reserve(self, session: SessionKey, layers: range, positions: int) -> None:
        """Make room for ``positions`` in all and no more; raises as :meth:`slot` does."""
        slot = self._find(session, layers)
        self._check_budget(self._need(slot, positions))
        if positions > slot.capacity:
            self._resize(slot, positions)
        self._slots[session, layers.start] = slot

    def length(self, session: SessionKey, first_layer: int) -> int:
        """Return how many positions are cached; 0 for a session that is not open."""
        slot = self._slots.get((session, first_layer))
        return slot.length if slot else 0

    def close(self, session: SessionKey) -> None:
        """Free all slots of ``session``."""
        for key in [key for key in self._slots if key[0] == session]:
            self._close_slot(key)

    def close_all(self) -> None:
        for session in {key[0] for key in self._slots}:
            self.close(session)

    def truncate(self, session: SessionKey, length: int) -> None:
        """Forget what lies at ``length`` and beyond, in every slot of ``session``.

        Raises:
            LocalProtocolError: ``length`` is negative.
        """
        if length < 0:
            raise LocalProtocolError(f"no cache has {length} positions")
        for key, slot in self._slots.items():
            if key[0] == session:
                slot.truncate(length)

    def export(self, session: SessionKey, layers: range, positions: range) -> KvBlock:
        """Copy positions out; see ``Engine.export_kv``."""
        slot = self._slots.get((session, layers.start))
        if slot is None or slot.layers != layers or not _lies_in(positions, slot.length):
            raise LocalProtocolError(f"no cache of layers {layers} has positions {positions}")
        return slot.export(positions)

    def append(self, session: SessionKey, layers: range, block: KvBlock) -> None:
        """Take what :meth:`export` returned at the slot's end; raises as :meth:`slot` does."""
        rows = block.shape[2] if block.ndim == 4 else 0
        if block.shape != (len(layers), 2, rows, self._width) or block.dtype != self._dtype:
            raise LocalProtocolError(f"a KV block of {block.dtype}{list(block.shape)}")
        if not np.isfinite(block).all():
            raise LocalProtocolError("a KV block that is not finite")
        end = self.length(session, layers.start) + rows
        slot = self.slot(session, layers, end)
        slot.put(block)
        slot.length = end

    def rename(self, session: SessionKey, other: SessionKey) -> None:
        """Give all slots of ``session`` to a session that has none.

        Raises:
            LocalProtocolError: It has some.
        """
        moved = [key for key in self._slots if key[0] == session]
        if session != other and any(key[0] == other for key in self._slots):
            raise LocalProtocolError("a session of that name is open")
        for key in moved:
            self._slots[other, key[1]] = self._slots.pop(key)

    def fork(
        self,
        session: SessionKey,
        other: SessionKey,
        layers: range,
        length: int,
        positions: int,
    ) -> None:
        """Copy the beginning of a slot into a new one; raises as :meth:`slot` and :meth:`export`.

        The copy goes by way of a block of numpy's: 8 MB take 7 ms, most of it for fresh memory.
        """
        if (other, layers.start) in self._slots or positions < length:
            raise LocalProtocolError("a fork begins a session, with room for what it copies")
        block = self.export(session, layers, range(length))
        self.reserve(other, layers, positions)
        slot = self._slots[other, layers.start]
        try:
            slot.put(block)
        except BaseException:
            self._close_slot((other, layers.start))
            raise
        slot.length = length

    def reserved_bytes(self) -> int:
        return self._reserved

    def _close_slot(self, key: CacheKey) -> None:
        slot = self._slots.pop(key)
        self._reserved -= self._cost(slot, slot.capacity)
        slot.free()

    def _find(self, session: SessionKey, layers: range) -> SlotT:
        slot = self._slots.get((session, layers.start)) or self._make(layers)
        if slot.layers != layers:
            raise LocalProtocolError(f"the session runs layers {slot.layers}, not {layers}")
        return slot

    def _grow(self, slot: SlotT, positions: int, promised: int) -> None:
        """Double the slot, or give it what it needs where it cannot have more.

        ``promised`` bytes are others'. There may be no such memory, or LongRoPE's border between.
        """
        ample = max(FIRST_POSITIONS, 2 * slot.capacity, positions)
        if self.sizes.doubles:  # by themselves
            ample = self.sizes.rounded(positions)
        ample = min(ample, self._max_positions)
        free = self.budget_bytes - self._reserved - promised
        if ample > positions and self._cost(slot, ample) - self._cost(slot, slot.capacity) <= free:
            with suppress(CapacityError):
                self._resize(slot, ample)
                return
        self._resize(slot, positions)

    def _need(self, slot: SlotT, positions: int) -> int:
        """Return how many bytes more the slot needs for ``positions`` in all."""
        if positions > self._max_positions:
            raise CapacityError(
                f"the context is full: {positions} positions asked for, the model has "
                f"{self._max_positions}",
                hint="Shorten the prompt or ask for fewer tokens.",
            )
        return max(0, self._cost(slot, positions) - self._cost(slot, slot.capacity))

    def _check_budget(self, more: int) -> None:
        if self._reserved + more > self.budget_bytes:
            raise CapacityError(
                f"no memory for the session's KV cache: {more} bytes more are needed, "
                f"{self.budget_bytes - self._reserved} of {self.budget_bytes} are free",
                hint="Wait for another session to end, or raise the KV budget.",
            )

    def _resize(self, slot: SlotT, capacity: int) -> None:
        before = slot.capacity
        slot.resize(capacity)
        slot.capacity = capacity
        self._reserved += self._cost(slot, capacity) - self._cost(slot, before)

    def _cost(self, slot: SlotT, positions: int) -> int:
        """Return the bytes of a slot with room for so many positions."""
        return len(slot.layers) * self.sizes.rounded(positions) * self.bytes_per_token_layer


def _lies_in(positions: range, length: int) -> bool:
    return positions.step == 1 and 0 <= positions.start <= positions.stop <= length
