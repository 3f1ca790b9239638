"""A hash of the traffic that is the same on every machine."""

import hashlib
import struct
from collections.abc import Callable

from p2pnode.sansio import Address


class TrafficHash:
    """Over who sent how many bytes to whom and when, to the microsecond.

    What the datagrams say is left out: another machine's BLAS rounds activations another way.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._hash = hashlib.blake2b(digest_size=16)

    def digest(self, source: Address, destination: Address, payload: bytes) -> bool:
        """Take a datagram; to be the network's ``intercept``, which lets everything pass."""
        moment = round(self._clock() * 1e6)
        head = struct.pack("<QI", moment, len(payload))
        self._hash.update(head + f"{source} {destination}".encode())
        return True

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
