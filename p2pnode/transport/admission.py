"""The door: who may cost us a handshake's arithmetic.

Every handshake message carries mac1, keyed by the swarm's secret: strangers, garbage and other
swarms are dropped for a microsecond and hear nothing. A member gone mad, or a recording replayed,
passes mac1; so when handshakes come too fast, the responder keeps no state and answers a cookie,
which proves that the sender receives at the address it sends from (WireGuard's paper, section 5.3,
with the swarm's secret where WireGuard has the responder's public key).
"""

import hashlib
import hmac
from dataclasses import dataclass

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt as _open,
    crypto_aead_xchacha20poly1305_ietf_encrypt as _seal,
)
from nacl.exceptions import CryptoError

from p2pnode.errors import LocalProtocolError
from p2pnode.sansio import Address, Rng
from p2pnode.transport.packets import MAC_SIZE, CookieReply, DroppedError

SECRET_SIZE = 32
COOKIE_LIFE = 120.0
"""Seconds a cookie secret serves; the one before it still counts. WireGuard: 120."""


@dataclass(frozen=True, slots=True)
class SwarmKeys:
    """What follows from the swarm's secret, one key for one purpose.

    Attributes:
        psk: Mixed into the Noise handshake.
        mac1: Keys the first mac.
        cookie: Seals cookie replies.
    """

    psk: bytes
    mac1: bytes
    cookie: bytes

    @classmethod
    def derive(cls, secret: bytes) -> "SwarmKeys":
        if len(secret) != SECRET_SIZE:
            raise LocalProtocolError(f"a swarm secret has {SECRET_SIZE} bytes, not {len(secret)}")
        labels = (b"p2pnode psk", b"p2pnode mac1", b"p2pnode cookie")
        return cls(*(hashlib.blake2s(label, key=secret).digest() for label in labels))

    def stamp(self, packet: bytes) -> bytes:
        """Return ``packet`` with its mac1 behind it."""
        return packet + mac(self.mac1, packet)

    def strip_untrusted(self, packet: bytes) -> bytes:
        """Return what mac1 covers.

        Raises:
            DroppedError: The sender does not know the swarm's secret.
        """
        body, tag = packet[:-MAC_SIZE], packet[-MAC_SIZE:]
        if not hmac.compare_digest(mac(self.mac1, body), tag):
            raise DroppedError("handshake_wrong_secret", "mac1: wrong swarm secret, or garbage")
        return body

    def seal_cookie(self, cookie: bytes, receiver: int, mac1: bytes, rng: Rng) -> CookieReply:
        nonce = rng.randbytes(24)
        return CookieReply(receiver, nonce, _seal(cookie, mac1, nonce, self.cookie))

    def open_cookie_untrusted(self, reply: CookieReply, mac1: bytes) -> bytes:
        """Return the cookie; ``mac1`` is that of the very INIT it answers."""
        try:
            return _open(reply.sealed, mac1, reply.nonce, self.cookie)
        except CryptoError as error:
            raise DroppedError("cookie_forged") from error


class CookieJar:
    """Counts handshakes, and demands cookies when they come too fast.

    Cookies are recomputed, not stored: a flood costs no memory.
    """

    def __init__(self, rate: int, rng: Rng, now: float) -> None:
        """``rate`` is how many handshakes a second are answered without a cookie."""
        self._rate = rate
        self._rng = rng
        self._second = now
        self._answered = 0
        self._secrets = (rng.randbytes(32), rng.randbytes(32))
        self._turned = now

    def is_under_load(self, now: float) -> bool:
        """Count one more handshake, and say whether it needs a cookie."""
        if now - self._second >= 1.0:
            self._second = now
            self._answered = 0
        self._answered += 1
        return self._answered > self._rate

    def bake(self, source: Address, now: float) -> bytes:
        """Return the cookie of ``source`` as of now."""
        self._turn(now)
        return _cookie(self._secrets[0], source)

    def is_paid(self, covered: bytes, mac2: bytes, source: Address, now: float) -> bool:
        """Say whether ``mac2`` was made with a cookie that ``source`` had of us."""
        self._turn(now)
        return any(
            hmac.compare_digest(mac(_cookie(secret, source), covered), mac2)
            for secret in self._secrets
        )

    def _turn(self, now: float) -> None:
        if now - self._turned >= COOKIE_LIFE:
            self._secrets = (self._rng.randbytes(32), self._secrets[0])
            self._turned = now


def mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=MAC_SIZE).digest()


def _cookie(secret: bytes, source: Address) -> bytes:
    return mac(secret, f"{source[0]} {source[1]}".encode())
