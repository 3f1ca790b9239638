"""Transport: datagrams of strangers, and of members that hold the swarm's secret."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from random import Random

from p2pnode.errors import RemoteProtocolError
from p2pnode.sansio import Address
from p2pnode.testing.pair import SECRET, connected_pair, identity_of
from p2pnode.transport.admission import SwarmKeys
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.events import Delivery
from p2pnode.transport.frames import (
    Ack,
    Shard,
    close_frame,
    decode_frames_untrusted,
    done_frame,
    probe_frame,
    shard_header,
)
from p2pnode.transport.handshake import Answer, Dial, Local
from p2pnode.transport.identity import static_key_untrusted
from p2pnode.transport.messages import Reassembly
from p2pnode.transport.noise import IK_PSK2, XX_PSK3, HandshakeState
from p2pnode.transport.packets import (
    CookieReply,
    Finish,
    Hello,
    Init,
    Kind,
    Response,
)
from tests.fuzz.target import MIB, Script, Target, blob
from tests.transport.read_alike import assert_read_alike

_KEYS = SwarmKeys.derive(SECRET)
_EVIL, _US = identity_of("evil"), identity_of("us")
_EVIL_ADDRESS: Address = ("192.0.2.66", 666)
_PROLOGUE = b"p2pnode transport 1"
_HELLO = Hello(_EVIL.node_id, bytes(8), 1200)
_HELD = 4096


def packets(data: bytes) -> None:
    """The outermost layer, without macs."""
    kind = data[0] if data else 0
    if kind == Kind.INIT:
        assert Init.decode_untrusted(data).encode() == data
    elif kind == Kind.RESPONSE:
        assert Response.decode_untrusted(data).encode() == data
    elif kind == Kind.FINISH:
        assert Finish.decode_untrusted(data).encode() == data
    else:
        assert CookieReply.decode_untrusted(data).encode()[1:] == data[1:]


def frames(data: bytes) -> None:
    """What a sealed datagram holds; the fast path reads the same, or leaves it."""
    assert_read_alike(data)
    for frame in decode_frames_untrusted(data):
        if isinstance(frame, Ack):
            edges = [edge for low, high in frame.ranges for edge in (high, low)]
            assert all(low <= high for low, high in frame.ranges)
            assert edges == sorted(edges, reverse=True)
            assert edges[-1] >= 0


def reassembly(data: bytes) -> None:
    """Shards of several messages; what is under way never takes more than it may."""
    pieces, script = Reassembly(_HELD), Script(data)
    delivered: set[int] = set()
    while script:
        with suppress(RemoteProtocolError):
            for frame in decode_frames_untrusted(script.blob()):
                if isinstance(frame, Shard):
                    payload, _ = pieces.add_piece_untrusted(
                        frame.message,
                        frame.delivery,
                        frame.length,
                        frame.count,
                        frame.index,
                        frame.data,
                    )
                    if payload is not None:
                        assert len(payload) == frame.length
                        assert frame.message not in delivered
                        delivered.add(frame.message)
        assert 0 <= pieces._held <= _HELD


def connection(data: bytes) -> None:
    """A peer seals whatever it likes, while a message of ours is on its way to it."""
    peers, alice, bob = connected_pair(1)
    evil, us = peers.endpoints[alice], peers.endpoints[bob]
    now = peers.network.now
    us.send(peers.node_id(alice), bytes(5000), Delivery.BULK, now)
    session = evil._connection(peers.node_id(bob))._session
    script = Script(data)
    while script:
        now += script.byte() / 64
        us.handle_timeout(now)
        us.datagrams_to_send()
        with suppress(RemoteProtocolError):
            us.receive_datagram(session.seal(script.blob(), now), alice, now)
        us.take_events()


def endpoint(data: bytes) -> None:
    """Datagrams of a stranger, and handshakes that bear the mac1 of a member."""
    us = Endpoint(TransportConfig.simulation(), _US, SECRET, Random(1), 0.0)
    us.connect(_EVIL_ADDRESS, 0.0, peer=_EVIL.node_id)
    script, now = Script(data), 0.0
    while script:
        step = script.byte()
        now += (step >> 2) / 16
        datagram = script.blob()
        if step & 1:
            datagram = _KEYS.stamp(datagram) + bytes(16 if datagram[:1] == b"\1" else 0)
        with suppress(RemoteProtocolError):
            us.receive_datagram(datagram, _EVIL_ADDRESS, now)
        us.handle_timeout(now)
        us.datagrams_to_send()
        us.take_events()


def hello(data: bytes) -> None:
    """A member shakes hands by the book, and introduces itself with whatever it likes."""
    step, payload = (data[0] if data else 0), data[1:]
    if step % 3 == 0:
        state = _state(IK_PSK2, initiator=True)
        init = Init(IK_PSK2, 5, state.write_message(payload))
        answer = Answer(_local(), init, _EVIL_ADDRESS, 9, 0.0)
        assert answer.established is not None
        assert _is_evil(answer.established.hello)
    elif step % 3 == 1:
        dial = Dial(_local(), _EVIL_ADDRESS, None, 9, 0.0)
        state = _state(XX_PSK3, initiator=False)
        state.read_message_untrusted(dial.ephemeral)
        made = dial.receive_response_untrusted(
            Response(5, 9, state.write_message(payload)), _EVIL_ADDRESS, 0.0
        )
        assert _is_evil(made.hello)
    else:
        Hello.decode_untrusted(payload, _local().identity.static_key)


def _state(pattern: object, *, initiator: bool) -> HandshakeState:
    known = _local_static() if initiator else None
    return HandshakeState(
        IK_PSK2 if pattern is IK_PSK2 else XX_PSK3,
        is_initiator=initiator,
        prologue=_PROLOGUE,
        psk=_KEYS.psk,
        static=_EVIL.static_key,
        ephemeral=bytes(range(32)),
        remote_static=known,
    )


def _local() -> Local:
    ours = replace(_HELLO, node_id=_US.node_id)
    return Local(TransportConfig.simulation(), _US, _KEYS, ours, Random(1))


def _local_static() -> bytes:
    return static_key_untrusted(_US.node_id)


def _is_evil(told: Hello) -> bool:
    # Two keys of ed25519 that differ in their sign are one on the curve of the handshake, and
    # whoever holds one can sign with the other.
    return static_key_untrusted(told.node_id) == static_key_untrusted(_EVIL.node_id)


# Seeds


def _packet_seeds() -> Iterator[bytes]:
    noise = bytes(range(48))
    yield Init(XX_PSK3, 1, noise).encode()
    yield Init(IK_PSK2, 1, noise * 3).encode()
    yield Response(1, 2, noise * 2).encode()
    yield Finish(2, noise * 2).encode()
    yield CookieReply(2, bytes(24), bytes(32)).encode()


def _frame_seeds() -> Iterator[bytes]:
    yield Ack(((90, 99), (50, 60), (1, 2)), 0.01).encode(200) + done_frame(3) + b"\3"
    yield close_frame("good bye")
    yield probe_frame(40)
    yield b"\6payload"
    yield from _shards(7, bytes(range(90)), 3)


def _shards(number: int, message: bytes, count: int) -> Iterator[bytes]:
    size = -(-len(message) // count)
    for index in range(count):
        head = shard_header(Delivery.BULK, number, len(message), count, index)
        yield head + message[index * size : (index + 1) * size]
    yield shard_header(Delivery.BULK, number, len(message), count, count) + bytes(size)


def _shard_seeds() -> Iterator[bytes]:
    pieces = [*_shards(0, bytes(90), 3), *_shards(1, b"whole", 1), *_shards(2, bytes(40), 2)]
    yield b"".join(map(blob, pieces))
    yield b"".join(map(blob, reversed(pieces)))


def _connection_seeds() -> Iterator[bytes]:
    told = [*_frame_seeds()]
    yield b"".join(b"\1" + blob(one) for one in told if one[0] != 4)
    yield b"\x20" + blob(Ack(((0, 3),), 0.0).encode(200)) + b"\x20" + blob(close_frame("enough"))


def _endpoint_seeds() -> Iterator[bytes]:
    yield b"".join(b"\1" + blob(packet) for packet in _packet_seeds())
    yield b"\0" + blob(struct.pack("<BIQ", Kind.DATA, 1, 0) + bytes(40))
    state = _state(IK_PSK2, initiator=True)
    yield b"\1" + blob(Init(IK_PSK2, 5, state.write_message(_HELLO.encode())).encode())


def _hello_seeds() -> Iterator[bytes]:
    yield from (bytes((step,)) + _HELLO.encode() for step in range(3))


TARGETS = (
    Target("transport-packets", packets, _packet_seeds, max_len=400),
    Target("transport-frames", frames, _frame_seeds, max_len=1500),
    Target("reassembly", reassembly, _shard_seeds, max_len=2000),
    Target("connection", connection, _connection_seeds, max_len=1500, memory=4 * MIB),
    Target("endpoint", endpoint, _endpoint_seeds, max_len=1500, memory=4 * MIB),
    Target("hello", hello, _hello_seeds, max_len=200),
)
