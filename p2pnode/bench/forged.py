"""What datagrams cost that nobody honest sent: the transport's work for each, without a socket."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any, Final

from p2pnode import CORES
from p2pnode.bench.figures import spread
from p2pnode.errors import RemoteProtocolError
from p2pnode.sansio import Address
from p2pnode.testing.pair import connected_pair
from p2pnode.transport.packets import DATA_HEADER, Kind

RATE: Final = 50_000
"""Forged datagrams a second whose share of a core is told."""

OPEN: Final = "data of an open session"

_BYTES: Final = 1200
_STRANGER: Final = ("203.0.113.9", 4747)
_STEP: Final = 1 / RATE  # virtual seconds between two


def measure(*, rounds: int, datagrams: int, tell: Callable[[float], None]) -> dict[str, Any]:
    """Give an endpoint ``datagrams`` of each kind, ``rounds`` times, the kinds in turns.

    Returns:
        ``rows``: for each kind, microseconds a datagram over the rounds, the share of a core that
        50,000 a second take, and how many of the last round were refused. ``session_works``:
        whether the open session carried a message afterwards.
    """
    forger = _Forger()
    taken: dict[str, list[float]] = {kind: [] for kind in forger.kinds}
    refused: dict[str, int] = {}
    for done in range(rounds):
        for kind, seconds in taken.items():
            spent, refused[kind] = forger.flood(kind, datagrams)
            seconds.append(1e6 * spent / datagrams)
        tell((done + 1) / rounds)
    rows = [
        {
            "kind": kind,
            "us": spread(seconds),
            "core_at_50k_s": round(spread(seconds)["p50"] * RATE / 1e6, 3),
            "refused": refused[kind],
        }
        for kind, seconds in taken.items()
    ]
    return {
        "rounds": rounds,
        "datagrams": datagrams,
        "compiled": CORES.is_compiled,
        "rows": rows,
        "session_works": forger.session_works(),
    }


class _Forger:
    """Floods one of two endpoints that have an open session.

    Attributes:
        kinds: What makes a forged datagram of each kind.
    """

    def __init__(self) -> None:
        self._pair, self._honest, self._flooded = connected_pair(1)
        self._rng = Random(1)
        index = self._index_of_session()
        self.kinds: Final[dict[str, Callable[[], bytes]]] = {
            "data of a session that is not": lambda: self._data(self._rng.getrandbits(32)),
            OPEN: lambda: self._data(index),
            "a handshake's beginning": lambda: bytes([Kind.INIT, 0]) + self._rng.randbytes(212),
            "noise": lambda: self._rng.randbytes(_BYTES),
        }

    def flood(self, kind: str, count: int) -> tuple[float, int]:
        """Return the seconds that ``count`` datagrams took, and how many were refused."""
        make = self.kinds[kind]
        made = [make() for _ in range(count)]
        endpoint = self._pair.endpoints[self._flooded]
        source = self._honest if kind == OPEN else _STRANGER  # an address can be forged too
        now, refused = self._pair.network.now, 0
        began = time.perf_counter()
        for datagram in made:
            now += _STEP
            try:
                endpoint.receive_datagram(datagram, source, now)
            except RemoteProtocolError:
                refused += 1
        spent = time.perf_counter() - began
        self._pair.network.run(count * _STEP)  # what it wants sent is sent, should there be any
        return spent, refused

    def session_works(self) -> bool:
        """Tell whether a message still gets through."""
        self._pair.send(self._honest, self._flooded, b"still there")
        self._pair.network.run(1.0)
        return self._pair.received(self._flooded)[-1:] == [b"still there"]

    def _index_of_session(self) -> int:
        """Return what the honest one puts into the head of its datagrams, for all to see."""
        seen: list[bytes] = []

        def keep(source: Address, destination: Address, payload: bytes) -> bool:
            if destination == self._flooded and payload[0] == Kind.DATA:
                seen.append(payload)
            return True

        self._pair.network.intercept = keep
        self._pair.send(self._honest, self._flooded, b"hello")
        self._pair.network.run(1.0)
        self._pair.network.intercept = None
        index: int = DATA_HEADER.unpack_from(seen[-1])[1]
        return index

    def _data(self, index: int) -> bytes:
        head = DATA_HEADER.pack(Kind.DATA, index, self._rng.getrandbits(32))
        return head + self._rng.randbytes(_BYTES - len(head))
