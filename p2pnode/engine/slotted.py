"""What every engine on this machine does alike: check what it is asked, and keep the sessions."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Generic

import numpy as np

from p2pnode.engine.base import (
    Array,
    Floats,
    KvBlock,
    KvSizes,
    ModelInfo,
    SessionKey,
    SessionRows,
    StageCost,
    check_together,
)
from p2pnode.engine.calibration import calibrate, calibration
from p2pnode.engine.kv_slots import KvSlots, SlotT
from p2pnode.errors import LocalProtocolError


class SlottedEngine(ABC, Generic[SlotT]):
    """See :class:`p2pnode.engine.base.Engine`; what computes is left to the hooks at the end."""

    def __init__(
        self,
        info: ModelInfo,
        layers: range,
        slots: KvSlots[SlotT],
        *,
        numerics: str,
        device: str,
        weight_bytes: int,
    ) -> None:
        self.info = info
        self.layers = layers
        self.numerics = numerics
        self.device = device
        self.weight_bytes = weight_bytes
        self._slots = slots

    @property
    def kv_bytes_per_token_layer(self) -> int:
        return self._slots.bytes_per_token_layer

    @property
    def kv_sizes(self) -> KvSizes:
        return self._slots.sizes

    @property
    def kv_budget_bytes(self) -> int:
        """The most memory that all sessions' KV caches may take."""
        return self._slots.budget_bytes

    def forward(
        self, session: SessionKey, layers: range, batches: Sequence[Array], start: int
    ) -> list[Floats]:
        self._check(layers)
        self._check_start(session, layers, start)
        if not batches:
            raise LocalProtocolError("a call has at least one batch")
        states = [self._enter(batch, layers) for batch in batches]  # [tokens, d_model] each
        slot = self._slots.slot(session, layers, start + sum(map(len, states)))
        return self._run(slot, layers, states)

    def forward_many(self, layers: range, parts: Sequence[SessionRows]) -> list[Floats]:
        self._check(layers)
        check_together(parts)
        states = []
        for part in parts:
            self._check_start(part.session, layers, part.start)
            states.append(self._enter(part.rows, layers))  # [tokens, d_model]
        ends = {part.session: part.start + len(part.rows) for part in parts}
        slots = self._slots.slots(layers, ends)  # for all or for none
        return self._run_together(slots, layers, states)

    def truncate(self, session: SessionKey, length: int) -> None:
        self._slots.truncate(session, length)

    def logits(self, hidden: Floats) -> Floats:
        self._check_last(hidden)
        logits = np.empty((len(hidden), self.info.vocab_size), np.float32)  # [n, vocab]
        if len(hidden):
            self._fill_logits(hidden, logits)
        return logits

    def normed(self, hidden: Floats) -> Floats:
        self._check_last(hidden)
        rows = np.empty(hidden.shape, np.float32)  # [n, d_model]
        if len(hidden):
            self._fill_normed(hidden, rows)
        return rows

    def reserve(self, session: SessionKey, layers: range, tokens: int) -> None:
        self._check(layers)
        self._slots.reserve(session, layers, tokens)

    def length(self, session: SessionKey, first_layer: int) -> int:
        return self._slots.length(session, first_layer)

    def export_kv(self, session: SessionKey, layers: range, positions: range) -> KvBlock:
        return self._slots.export(session, layers, positions)

    def import_kv(self, session: SessionKey, layers: range, start: int, block: KvBlock) -> None:
        self._check(layers)
        self._check_start(session, layers, start)
        self._slots.append(session, layers, block)

    def rename(self, session: SessionKey, other: SessionKey) -> None:
        self._slots.rename(session, other)

    def fork(
        self,
        session: SessionKey,
        other: SessionKey,
        layers: range,
        length: int,
        positions: int,
    ) -> None:
        self._slots.fork(session, other, layers, length, positions)

    def close(self, session: SessionKey) -> None:
        self._slots.close(session)

    def shut(self) -> None:
        self._slots.close_all()

    def kv_bytes(self) -> int:
        return self._slots.reserved_bytes()

    def measure(self) -> StageCost:
        return calibrate(self)

    def measuring(self) -> Iterator[StageCost | None]:
        return calibration(self)

    def settle(self) -> None:
        """Have no threads of one's own."""

    def _check(self, layers: range) -> None:
        held = self.layers
        if not (
            layers and layers.step == 1 and held.start <= layers.start < layers.stop <= held.stop
        ):
            raise LocalProtocolError(f"asked for layers {layers}, holding {held}")

    def _check_last(self, hidden: Floats) -> None:
        if self.layers.stop != self.info.n_layers:
            raise LocalProtocolError(f"layers {self.layers} do not include the last one")
        if not self._is_hidden(hidden):
            raise LocalProtocolError(f"no hidden states: {hidden.dtype}{list(hidden.shape)}")

    def _check_start(self, session: SessionKey, layers: range, start: int) -> None:
        cached = self._slots.length(session, layers.start)
        if start != cached:
            raise LocalProtocolError(f"rows start at {start}, the session's cache at {cached}")

    def _enter(self, batch: Array, layers: range) -> Floats:
        """Return the batch as hidden states [tokens, d_model] of our own."""
        if self._is_hidden(batch) and len(batch):
            return batch.copy("C")  # layers may write into it
        is_ids = batch.ndim == 1 and batch.dtype == np.int64 and len(batch) > 0
        if is_ids and layers.start == 0:
            first, last = (batch[0], batch[0]) if len(batch) == 1 else (batch.min(), batch.max())
            if first < 0 or last >= self.info.vocab_size:
                raise LocalProtocolError(f"token ids must be below {self.info.vocab_size}")
            return self._embed(batch)
        raise LocalProtocolError(
            f"a batch of {batch.dtype}{list(batch.shape)} cannot enter layer {layers.start}"
        )

    def _is_hidden(self, rows: Array) -> bool:
        width = self.info.d_model
        return rows.ndim == 2 and rows.shape[1] == width and rows.dtype == np.float32

    # What an engine computes

    @abstractmethod
    def _embed(self, ids: Array) -> Floats:
        """Return the hidden states [tokens, d_model] of ids [tokens]; the first layer is held."""

    @abstractmethod
    def _run(self, slot: SlotT, layers: range, states: list[Floats]) -> list[Floats]:
        """Run batches [tokens, d_model], which may be overwritten, at the end of a slot with room.

        The slot's length grows by their rows.
        """

    @abstractmethod
    def _run_together(
        self, slots: Sequence[SlotT], layers: range, states: Sequence[Floats]
    ) -> list[Floats]:
        """Run one batch [tokens, d_model] for each of several slots; otherwise as :meth:`_run`."""

    @abstractmethod
    def _fill_logits(self, hidden: Floats, logits: Floats) -> None:
        """Turn at least one row of [n, d_model] into logits [n, vocab]; the last layer is held."""

    @abstractmethod
    def _fill_normed(self, hidden: Floats, rows: Floats) -> None:
        """Put the last norm of at least one row of [n, d_model] into rows of the same shape."""
