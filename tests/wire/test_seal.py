"""The nonce is derived as published, and keys have one length."""

import pytest
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

from p2pnode.errors import LocalProtocolError
from p2pnode.wire.seal import FrameOpener, FrameSealer

KEY, SALT = bytes(range(32)), bytes(range(12))


def test_the_nonce_is_salt_stream_and_number_and_the_header_is_covered() -> None:
    sealed = FrameSealer(KEY, SALT).seal(b"body", b"header", stream_id=0x01020304, frame_seq=5)
    nonce = SALT + b"\4\3\2\1" + b"\5\0\0\0\0\0\0\0"
    assert len(nonce) == 24
    assert crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, b"header", nonce, KEY) == b"body"


def test_the_same_number_in_another_stream_is_another_nonce() -> None:
    sealer = FrameSealer(KEY, SALT)
    first = sealer.seal(b"body", b"", stream_id=1, frame_seq=1)
    assert sealer.seal(b"body", b"", stream_id=2, frame_seq=1) != first


@pytest.mark.parametrize("side", [FrameSealer, FrameOpener])
@pytest.mark.parametrize(("key", "salt"), [(KEY[:31], SALT), (KEY, SALT + b"\0")])
def test_a_key_or_salt_of_another_length_is_our_own_mistake(
    side: type[FrameSealer] | type[FrameOpener], key: bytes, salt: bytes
) -> None:
    with pytest.raises(LocalProtocolError):
        side(key, salt)


def test_a_number_too_wide_has_no_nonce() -> None:
    with pytest.raises(LocalProtocolError):
        FrameSealer(KEY, SALT).seal(b"", b"", stream_id=1 << 32, frame_seq=0)
