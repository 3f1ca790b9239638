from contextlib import suppress

import pytest
from hypothesis import given, strategies as st
from nacl.bindings import crypto_scalarmult_base

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.sansio import NodeId
from p2pnode.transport import identity as keys
from p2pnode.transport.identity import Identity, is_possible, static_key_untrusted, verify


def test_the_static_key_follows_from_the_node_id() -> None:
    identity = Identity(b"\7" * 32)
    assert static_key_untrusted(identity.node_id) == crypto_scalarmult_base(identity.static_key)


def test_a_signature_holds_for_its_message_and_signer_alone() -> None:
    signer, other = Identity(b"\1" * 32), Identity(b"\2" * 32)
    signature = signer.sign(b"a record")
    assert verify(signer.node_id, b"a record", signature)
    assert not verify(signer.node_id, b"another", signature)
    assert not verify(other.node_id, b"a record", signature)


@given(node_id=st.binary(max_size=40), message=st.binary(), signature=st.binary(max_size=70))
def test_verify_never_raises(node_id: bytes, message: bytes, signature: bytes) -> None:
    assert not verify(NodeId(node_id), message, signature)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_key_or_refused(node_id: bytes) -> None:
    with suppress(RemoteProtocolError):
        assert len(static_key_untrusted(node_id)) == 32


def test_a_seed_has_32_bytes() -> None:
    with pytest.raises(LocalProtocolError):
        Identity(b"short")


def test_a_key_is_looked_at_once_however_often_it_is_called() -> None:
    made = Identity(bytes([9] * 32))
    before = keys._montgomery.cache_info().misses
    assert len({static_key_untrusted(made.node_id) for _ in range(100)}) == 1
    assert keys._montgomery.cache_info().misses - before <= 1
    assert not any(is_possible(bytes([2]) + bytes(31)) for _ in range(2))
