"""The Noise protocol framework, revision 34, for the two handshakes a node uses.

Only what :data:`XX_PSK3` and :data:`IK_PSK2` need, with the one suite that this project uses:
25519, ChaChaPoly, BLAKE2s. Section numbers in comments are those of the specification
(noiseprotocol.org/noise.html). Checked against published vectors in the tests.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt as _open,
    crypto_aead_chacha20poly1305_ietf_encrypt as _seal,
    crypto_scalarmult,
    crypto_scalarmult_base,
)
from nacl.exceptions import CryptoError

from p2pnode.errors import LocalProtocolError, RemoteProtocolError

KEY_SIZE = 32
TAG_SIZE = 16


@dataclass(frozen=True, slots=True)
class Pattern:
    """A handshake pattern: who says which step when (section 7).

    Attributes:
        name: As it stands in the protocol name, e.g. ``XXpsk3``.
        knows_responder: Whether the initiator has the responder's static key beforehand.
        messages: The tokens of each message, the initiator speaking first.
    """

    name: str
    knows_responder: bool
    messages: tuple[tuple[str, ...], ...]

    @property
    def protocol_name(self) -> bytes:
        return b"Noise_%s_25519_ChaChaPoly_BLAKE2s" % self.name.encode()


XX_PSK3 = Pattern("XXpsk3", False, (("e",), ("e", "ee", "s", "es"), ("s", "se", "psk")))
IK_PSK2 = Pattern("IKpsk2", True, (("e", "es", "s", "ss"), ("e", "ee", "se", "psk")))


class CipherState:
    """A key and the number of times it was used (section 5.1)."""

    __slots__ = ("_key", "_nonce")

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key
        self._nonce = 0

    def encrypt(self, associated: bytes, plaintext: bytes) -> bytes:
        if self._key is None:
            return plaintext
        sealed = _seal(plaintext, associated, self._next_nonce(), self._key)
        self._nonce += 1
        return sealed

    def decrypt_untrusted(self, associated: bytes, sealed: bytes) -> bytes:
        if self._key is None:
            return sealed
        if len(sealed) < TAG_SIZE:
            raise RemoteProtocolError("a Noise message is too short")
        try:
            plaintext = _open(sealed, associated, self._next_nonce(), self._key)
        except CryptoError as error:
            raise RemoteProtocolError("a Noise message failed its authentication") from error
        self._nonce += 1
        return plaintext

    def clone(self) -> "CipherState":
        twin = CipherState(self._key)
        twin._nonce = self._nonce
        return twin

    def _next_nonce(self) -> bytes:
        return struct.pack("<IQ", 0, self._nonce)


class SymmetricState:
    """The running key and transcript hash of a handshake (section 5.2)."""

    __slots__ = ("_chaining_key", "cipher", "hash")

    def __init__(self, protocol_name: bytes) -> None:
        short = len(protocol_name) <= KEY_SIZE
        self.hash = protocol_name.ljust(KEY_SIZE, b"\0") if short else _hash(protocol_name)
        self._chaining_key = self.hash
        self.cipher = CipherState()

    def mix_key(self, material: bytes) -> None:
        self._chaining_key, key = _hkdf(self._chaining_key, material, 2)
        self.cipher = CipherState(key)

    def mix_hash(self, data: bytes) -> None:
        self.hash = _hash(self.hash + data)

    def mix_key_and_hash(self, material: bytes) -> None:
        self._chaining_key, middle, key = _hkdf(self._chaining_key, material, 3)
        self.mix_hash(middle)
        self.cipher = CipherState(key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        sealed = self.cipher.encrypt(self.hash, plaintext)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash_untrusted(self, sealed: bytes) -> bytes:
        plaintext = self.cipher.decrypt_untrusted(self.hash, sealed)
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the two transport keys: initiator to responder, and back."""
        first, second = _hkdf(self._chaining_key, b"", 2)
        return first, second

    def clone(self) -> "SymmetricState":
        twin = SymmetricState(self.hash)
        twin.hash = self.hash
        twin._chaining_key = self._chaining_key
        twin.cipher = self.cipher.clone()
        return twin


class HandshakeState:
    """One side of one handshake (section 5.3).

    A message that fails to authenticate changes nothing, so a forged one cannot spoil a handshake
    that is under way.
    """

    def __init__(
        self,
        pattern: Pattern,
        *,
        is_initiator: bool,
        prologue: bytes,
        psk: bytes,
        static: bytes,
        ephemeral: bytes,
        remote_static: bytes | None = None,
    ) -> None:
        """``static`` and ``ephemeral`` are private keys; ``remote_static`` a public one."""
        if is_initiator and pattern.knows_responder and remote_static is None:
            raise LocalProtocolError(f"{pattern.name} needs the responder's static key")
        self._pattern = pattern
        self._is_initiator = is_initiator
        self._psk = psk
        self._static = static
        self._ephemeral = ephemeral
        self.remote_static = remote_static
        self._remote_ephemeral: bytes | None = None
        self._turn = 0
        self._symmetric = SymmetricState(pattern.protocol_name)
        self._symmetric.mix_hash(prologue)
        if pattern.knows_responder:
            known = remote_static if is_initiator else crypto_scalarmult_base(static)
            self._symmetric.mix_hash(known or b"")

    @property
    def is_finished(self) -> bool:
        return self._turn == len(self._pattern.messages)

    @property
    def handshake_hash(self) -> bytes:
        return self._symmetric.hash

    def split(self) -> tuple[bytes, bytes]:
        """Return the transport keys (initiator's sending key first) of a finished handshake."""
        return self._symmetric.split()

    def write_message(self, payload: bytes) -> bytes:
        """Return our next message with ``payload`` in it, sealed as well as the pattern can."""
        parts = []
        for step in self._take_turn(ours=True):
            if step == "e":
                public = crypto_scalarmult_base(self._ephemeral)
                self._symmetric.mix_hash(public)
                self._symmetric.mix_key(public)  # section 9.2: every psk pattern does this
                parts.append(public)
            elif step == "s":
                public = crypto_scalarmult_base(self._static)
                parts.append(self._symmetric.encrypt_and_hash(public))
            else:
                self._mix(step, self._symmetric)
        parts.append(self._symmetric.encrypt_and_hash(payload))
        return b"".join(parts)

    def read_message_untrusted(self, message: bytes) -> bytes:
        """Return the payload of their next message.

        Raises:
            RemoteProtocolError: It is too short, forged, or holds a degenerate key; nothing
                changed.
        """
        before = (self._symmetric, self.remote_static, self._remote_ephemeral, self._turn)
        self._symmetric = self._symmetric.clone()
        try:
            for step in self._take_turn(ours=False):
                message = self._read_token_untrusted(step, message)
            return self._symmetric.decrypt_and_hash_untrusted(message)
        except RemoteProtocolError:
            self._symmetric, self.remote_static, self._remote_ephemeral, self._turn = before
            raise

    def _take_turn(self, *, ours: bool) -> tuple[str, ...]:
        if self.is_finished or (self._turn % 2 == 0) != (self._is_initiator == ours):
            raise LocalProtocolError(f"{self._pattern.name}: not this side's turn")
        self._turn += 1
        return self._pattern.messages[self._turn - 1]

    def _read_token_untrusted(self, step: str, message: bytes) -> bytes:
        """Consume what ``step`` says from the front of ``message``; return the rest."""
        if step == "e":
            self._remote_ephemeral, rest = _cut_untrusted(message, KEY_SIZE)
            self._symmetric.mix_hash(self._remote_ephemeral)
            self._symmetric.mix_key(self._remote_ephemeral)
            return rest
        if step == "s":
            sealed, rest = _cut_untrusted(message, KEY_SIZE + TAG_SIZE)
            self.remote_static = self._symmetric.decrypt_and_hash_untrusted(sealed)
            return rest
        self._mix(step, self._symmetric)
        return message

    def _mix(self, step: str, symmetric: SymmetricState) -> None:
        if step == "psk":
            symmetric.mix_key_and_hash(self._psk)
            return
        ours, theirs = (step[0], step[1]) if self._is_initiator else (step[1], step[0])
        private = self._ephemeral if ours == "e" else self._static
        public = self._remote_ephemeral if theirs == "e" else self.remote_static
        try:
            symmetric.mix_key(crypto_scalarmult(private, public or b""))
        except (CryptoError, RuntimeError) as error:  # libsodium refuses points of low order
            raise RemoteProtocolError("a degenerate public key") from error


def _cut_untrusted(message: bytes, size: int) -> tuple[bytes, bytes]:
    if len(message) < size:
        raise RemoteProtocolError("a Noise message is too short")
    return message[:size], message[size:]


def _hash(data: bytes) -> bytes:
    return hashlib.blake2s(data).digest()


def _hkdf(chaining_key: bytes, material: bytes, count: int) -> tuple[bytes, ...]:
    """Section 4.3: HKDF over HMAC-BLAKE2s."""
    secret = hmac.digest(chaining_key, material, "blake2s")
    outputs = []
    last = b""
    for number in range(1, count + 1):
        last = hmac.digest(secret, last + bytes([number]), "blake2s")
        outputs.append(last)
    return tuple(outputs)
