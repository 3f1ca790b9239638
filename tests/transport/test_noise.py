import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.transport.noise import IK_PSK2, XX_PSK3, CipherState, HandshakeState

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/noise.json").read_text())["vectors"]
PATTERNS = {pattern.protocol_name.decode(): pattern for pattern in (XX_PSK3, IK_PSK2)}


def side(vector: dict[str, Any], role: str) -> HandshakeState:
    remote = vector.get(f"{role}_remote_static")
    return HandshakeState(
        PATTERNS[vector["protocol_name"]],
        is_initiator=role == "init",
        prologue=bytes.fromhex(vector[f"{role}_prologue"]),
        psk=bytes.fromhex(vector[f"{role}_psks"][0]),
        static=bytes.fromhex(vector[f"{role}_static"]),
        ephemeral=bytes.fromhex(vector[f"{role}_ephemeral"]),
        remote_static=bytes.fromhex(remote) if remote else None,
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["protocol_name"])
def test_both_sides_agree_with_the_published_vectors(vector: dict[str, Any]) -> None:
    speaker, listener = side(vector, "init"), side(vector, "resp")
    messages = [
        (bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"]))
        for message in vector["messages"]
    ]
    while not speaker.is_finished:
        payload, ciphertext = messages.pop(0)
        assert speaker.write_message(payload) == ciphertext
        assert listener.read_message_untrusted(ciphertext) == payload
        speaker, listener = listener, speaker
    assert speaker.handshake_hash.hex() == vector["handshake_hash"]
    assert speaker.split() == listener.split()

    ciphers = [CipherState(key) for key in speaker.split()]
    first = len(vector["messages"]) - len(messages)
    for number, (payload, ciphertext) in enumerate(messages, first):
        assert ciphers[number % 2].encrypt(b"", payload) == ciphertext


def pair(psk: bytes = bytes(32)) -> tuple[HandshakeState, HandshakeState]:
    def make(*, is_initiator: bool, secret: bytes) -> HandshakeState:
        return HandshakeState(
            XX_PSK3,
            is_initiator=is_initiator,
            prologue=b"",
            psk=secret,
            static=bytes([1 + is_initiator] * 32),
            ephemeral=bytes([3 + is_initiator] * 32),
        )

    return make(is_initiator=True, secret=psk), make(is_initiator=False, secret=bytes(32))


@given(at=st.integers(0, 200), bit=st.integers(0, 7))
def test_a_forged_message_changes_nothing(at: int, bit: int) -> None:
    alice, bob = pair()
    bob.read_message_untrusted(alice.write_message(b""))
    genuine = bob.write_message(b"hello")
    forged = bytearray(genuine)
    forged[at % len(genuine)] ^= 1 << bit
    # Curve25519 ignores the top bit of a public key, but the transcript does not.
    with pytest.raises(RemoteProtocolError):
        alice.read_message_untrusted(bytes(forged))
    assert alice.read_message_untrusted(genuine) == b"hello"


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_way(message: bytes) -> None:
    _, bob = pair()
    with pytest.raises(RemoteProtocolError):
        bob.read_message_untrusted(message)


def test_a_degenerate_key_is_refused() -> None:
    alice, bob = pair()
    bob.read_message_untrusted(alice.write_message(b""))
    with pytest.raises(RemoteProtocolError):
        alice.read_message_untrusted(bytes(32) + bytes(100))


def test_another_secret_fails_at_the_message_that_holds_it() -> None:
    alice, bob = pair(psk=b"\1" * 32)
    bob.read_message_untrusted(alice.write_message(b""))
    alice.read_message_untrusted(bob.write_message(b""))
    with pytest.raises(RemoteProtocolError):
        bob.read_message_untrusted(alice.write_message(b""))


def test_speaking_out_of_turn_is_our_own_fault() -> None:
    alice, bob = pair()
    with pytest.raises(LocalProtocolError):
        bob.write_message(b"")
    with pytest.raises(LocalProtocolError):
        alice.read_message_untrusted(b"")
