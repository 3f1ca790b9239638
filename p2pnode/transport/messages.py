"""Messages in pieces: cutting them up to send, putting them together again within bounds."""

from collections.abc import Iterator
from typing import Final

from p2pnode.transport import fec
from p2pnode.transport.events import Delivery
from p2pnode.transport.memory import PART, PARTIAL_COST, RECEIVED_SHARD_COST, Pool, Share
from p2pnode.transport.packets import DroppedError

ID_SPAN = 16384
"""How far a message's number may run ahead of the oldest unfinished one's. The sender waits, so
that the receiver's memory of what it has delivered stays bounded."""

ID_MASK = 0xFFFFFFFF
"""Numbers are 32 bits wide and begin again at 0; the span keeps them unambiguous."""

LEAST_SHARD = 224
"""Bytes in the smallest shards of an honest cut in several: the smallest path carries 485 a
datagram, and equal shards of one more than that have 243."""

MOST_PARTIALS = 1024
"""Messages of one peer that may be incomplete at once; a window of 1 MiB holds 400 of two
shards."""

LEVELS: Final = (0, 1, 1, 2)
"""By delivery: what is lower leaves first. A DATAGRAM that is cut travels as BULK."""


class Outgoing:
    """A message on its way.

    Attributes:
        id: Its number on this connection.
        delivery: LATENCY or BULK, as the peer sees it.
        level: Which of what waits leaves first: 0 LATENCY, 1 BULK, 2 BACKGROUND.
        payload: The message; empty once it is done.
        count: Data shards it is cut into.
        geometry: Counts its cuts; a smaller path needs a new one.
        cost: Bytes of memory it was accounted for; its owner's.
        size: Bytes in the message.
        is_done: Enough shards were acknowledged: the peer has it.
    """

    __slots__ = (
        "_acked", "_copies", "_live", "_parity", "_shard_size", "_waiting", "cost", "count",
        "delivery", "geometry", "id", "is_done", "is_queued", "level", "payload", "size",
    )  # fmt: skip

    def __init__(
        self, number: int, payload: bytes, delivery: Delivery, shard_size: int, parity: int
    ) -> None:
        """``shard_size`` bytes at most make a shard, ``parity`` more shards are sent at once."""
        self.id = number
        self.payload = payload
        self.size = len(payload)
        self.cost = 0
        self.delivery = Delivery.BULK if delivery is Delivery.BACKGROUND else delivery
        self.level = LEVELS[delivery]
        self.geometry = 0
        self.is_done = False
        self.is_queued = False
        self._cut(shard_size, parity)

    def _cut(self, shard_size: int, parity: int) -> None:
        length = len(self.payload)
        count = -(-length // shard_size) or 1
        self._shard_size = -(-length // count)
        self.count = count if count == 1 else -(-length // self._shard_size)
        self._parity: dict[int, bytes] = {}
        self._acked: set[int] = set()
        self._copies: dict[int, int] = {}  # in flight, by index
        self._live = 0  # indices in flight and not acknowledged
        if self.count == 1:
            self._waiting = [0] * (1 + parity)  # parity of a single shard is the shard itself
            return
        self._waiting = list(range(self.count + parity - 1, -1, -1))  # popped from the end
        self._make_parity(self.count, parity)

    def recut(self, shard_size: int) -> None:
        """Begin anew with smaller shards; what is in flight no longer counts."""
        if self._shard_size > shard_size:
            self.geometry += 1
            self._cut(shard_size, 0)

    @property
    def is_waiting(self) -> bool:
        """Whether a shard waits to be sent."""
        return bool(self._waiting)

    def next_index(self) -> int:
        return self._waiting[-1]

    def shard(self, index: int) -> bytes:
        if self.count == 1:
            return self.payload
        if index < self.count:
            start = index * self._shard_size
            return self.payload[start : start + self._shard_size]
        return self._parity[index]

    def on_sent(self, index: int, *, again: bool = False) -> None:
        """The shard left; ``again`` when it was not the next one waiting."""
        if not again:
            self._waiting.pop()
        copies = self._copies.get(index, 0)
        if not copies and index not in self._acked:
            self._live += 1
        self._copies[index] = copies + 1

    def on_acked(self, index: int, geometry: int, *, in_flight: bool = True) -> bool:
        """A copy of the shard arrived; say whether that makes the message done."""
        if self.is_done or geometry != self.geometry:
            return False
        if index not in self._acked:
            self._acked.add(index)
            if self._copies.get(index):
                self._live -= 1
            if len(self._acked) >= self.count:
                self.finish()
                return True
        if in_flight:
            self._copies[index] -= 1
        self._refill()
        return False

    def on_lost(self, index: int, geometry: int) -> None:
        """A copy of the shard was lost; what is needed of it waits again."""
        if self.is_done or geometry != self.geometry:
            return
        self._copies[index] -= 1
        if not self._copies[index] and index not in self._acked:
            self._live -= 1
        self._refill()

    def finish(self) -> None:
        self.is_done = True
        self.payload = b""  # what was lost of it is remembered for a while, its bytes are not
        self._waiting.clear()
        self._parity.clear()

    def _refill(self) -> None:
        """Queue as many shards as could not arrive from what is in flight or queued already."""
        lacking = self.count - len(self._acked) - self._live - len(set(self._waiting))
        if lacking <= 0:
            return
        for index in self._absent():
            self._waiting.insert(0, index)
            lacking -= 1
            if not lacking:
                return

    def _absent(self) -> Iterator[int]:
        for index in range(self.count):
            if (
                index not in self._acked
                and not self._copies.get(index)
                and index not in self._waiting
            ):
                yield index

    def _make_parity(self, first: int, count: int) -> None:
        if count:
            size = self._shard_size
            data = [self.shard(index).ljust(size, b"\0") for index in range(self.count)]
            made = fec.encode(data, first - self.count, count)
            self._parity.update(zip(range(first, first + count), made, strict=True))


class _Partial:
    """A message of which some shards are here.

    Attributes:
        cost: Bytes that were reserved for it whole, so that it never fails halfway.
        is_fed: Whether a shard came since the last look.
        idle_from: When a look first found that none had.
    """

    __slots__ = ("cost", "count", "delivery", "idle_from", "is_fed", "length", "shards")

    def __init__(self, delivery: Delivery, length: int, count: int, cost: int) -> None:
        self.delivery = delivery
        self.length = length
        self.count = count
        self.cost = cost
        self.shards: dict[int, bytes] = {}
        self.is_fed = True
        self.idle_from = 0.0

    def join(self) -> tuple[bytes, bool]:
        """Return the message, and whether parity had to rebuild any of it."""
        size = -(-self.length // self.count)
        rebuilt = any(index >= self.count for index in self.shards)
        if not rebuilt:
            return b"".join(self.shards[index] for index in range(self.count)), False
        padded = {index: shard.ljust(size, b"\0") for index, shard in self.shards.items()}
        return b"".join(fec.recover(padded, self.count))[: self.length], True


class Reassembly:
    """Puts the peer's messages together, and delivers each once.

    Attributes:
        share: The memory it holds.
        recovered: Messages that parity completed.
    """

    def __init__(self, limit: int, pool: Pool | None = None, *, least_shard: int = 1) -> None:
        """Bound the messages under way.

        Args:
            limit: Bytes they may take, what is around them included.
            pool: What other peers take too; a pool of its own when left out.
            least_shard: A message cut in several, smaller than this, is refused.
        """
        self.share = Share(limit, pool or Pool((PART + 1) * limit))
        self._least_shard = least_shard
        self._partials: dict[int, _Partial] = {}
        self._floor = 0  # every message below it was delivered
        self._delivered = 0  # bit i: floor + i was, too; a set would take 500 times the memory
        self.recovered = 0

    def __len__(self) -> int:
        return len(self._partials)

    @property
    def _held(self) -> int:
        return self.share.held

    @property
    def arrived(self) -> int:
        """Bytes that are here of messages which are not complete."""
        return sum(one.length * len(one.shards) // one.count for one in self._partials.values())

    def add_piece_untrusted(
        self, number: int, delivery: Delivery, length: int, count: int, index: int, data: bytes
    ) -> tuple[bytes | None, bool]:
        """Take a shard, given as the fields of :class:`~p2pnode.transport.frames.Shard`.

        Returns:
            The message if this completes it, and whether the peer should be told to stop sending
            shards of it (parity rebuilt it, or it was delivered already).

        Raises:
            DroppedError: There is no room, or the peer breaks the rules; nothing changed, and the
                packet must not be acknowledged.
        """
        ahead = (number - self._floor) & ID_MASK
        if ahead > ID_MASK // 2 or self._delivered >> ahead & 1:
            return None, True
        if ahead >= ID_SPAN:
            raise DroppedError("message_ahead", f"message {number} is far ahead of {self._floor}")
        if count == 1 and number not in self._partials:
            self._mark(ahead)
            return data, False
        partial = self._partial_untrusted(number, delivery, length, count)
        if partial is None:
            return None, False
        partial.is_fed = True
        partial.shards.setdefault(index, data)
        if len(partial.shards) < partial.count:
            return None, False
        self._drop(number)
        self._mark(ahead)
        payload, rebuilt = partial.join()
        self.recovered += rebuilt
        return payload, rebuilt

    def forget_idle(self, now: float, patience: float) -> int:
        """Forget messages of which nothing came for ``patience`` seconds; return how many.

        Their sender gave them up, or plays with us: a sender repeats what is not acknowledged.
        To be called now and then.
        """
        idle: list[int] = []
        for number, partial in self._partials.items():
            if partial.is_fed:
                partial.is_fed = False
                partial.idle_from = now
            elif now - partial.idle_from >= patience:
                idle.append(number)
        for number in idle:
            self._drop(number)
        return len(idle)

    def release(self) -> None:
        """Give everything up: the connection has ended."""
        for number in list(self._partials):
            self._drop(number)

    def _partial_untrusted(
        self, number: int, delivery: Delivery, length: int, count: int
    ) -> _Partial | None:
        """Return where the shard belongs; None when it is of a cut that was given up."""
        partial = self._partials.get(number)
        if partial is not None and partial.count == count:
            if (partial.length, partial.delivery) != (length, delivery):
                raise DroppedError("shard_mismatch", "a message changed on its way")
            return partial
        if partial is not None and count < partial.count:
            return None  # the sender cuts anew only when the path has become smaller
        size = -(-length // count)
        if size < self._least_shard:
            raise DroppedError("shard_too_small", f"{length} bytes in {count} shards")
        cost = PARTIAL_COST + count * (size + RECEIVED_SHARD_COST)
        # What it holds already it keeps, even where others have left too little for a fair part.
        more = cost if partial is None else cost - partial.cost
        if more > self.share.room:
            raise DroppedError("reassembly_full")
        if partial is None and len(self._partials) >= MOST_PARTIALS:
            raise DroppedError("reassembly_too_many")
        self.share.take(more)
        self._partials[number] = made = _Partial(delivery, length, count, cost)
        return made

    def _drop(self, number: int) -> None:
        self.share.give_back(self._partials.pop(number).cost)

    def _mark(self, ahead: int) -> None:
        """Note that the message ``ahead`` of the floor was delivered."""
        if ahead or self._delivered:
            delivered = self._delivered | 1 << ahead
            done = (~delivered & delivered + 1).bit_length() - 1  # ones at the low end
            self._delivered = delivered >> done
            self._floor = self._floor + done & ID_MASK
        else:
            self._floor = self._floor + 1 & ID_MASK
