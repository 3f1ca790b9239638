"""The fast XChaCha20-Poly1305 against libsodium's."""

import pytest
from hypothesis import given, strategies as st
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.xchacha import XChaCha20Poly1305, hchacha20

KEYS, PREFIXES, SUFFIXES = (st.binary(min_size=size, max_size=size) for size in (32, 16, 8))


def test_hchacha20_as_the_draft_has_it() -> None:
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    expected = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert hchacha20(bytes(range(32)), nonce).hex() == expected


@given(KEYS, PREFIXES, SUFFIXES, st.binary(max_size=300), st.binary(max_size=40))
def test_every_byte_is_libsodiums(
    key: bytes, prefix: bytes, suffix: bytes, data: bytes, associated: bytes
) -> None:
    ours = XChaCha20Poly1305(key, prefix)
    sealed = ours.seal(data, associated, suffix)
    nonce = prefix + suffix
    assert sealed == crypto_aead_xchacha20poly1305_ietf_encrypt(data, associated, nonce, key)
    assert ours.open_untrusted(sealed, associated, suffix) == data


@given(st.binary(max_size=100), st.binary(max_size=20), SUFFIXES)
def test_what_was_not_sealed_here_is_refused(data: bytes, associated: bytes, suffix: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        XChaCha20Poly1305(bytes(32), bytes(16)).open_untrusted(data, associated, suffix)
