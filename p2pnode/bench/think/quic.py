"""QUIC by aioquic: one bidirectional stream, messages with their length before them.

Its events are handled as they come, and what they make is sent at once, as in its own examples;
its stream readers and writers would add two turns of the loop. The certificate is checked. The
datagrams are as large as loopback carries (the default, 1200, takes four for a message), since
p2pnode finds that out by itself.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from importlib import import_module
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from p2pnode.bench.think.contestant import (
    HOST,
    IDLE_SECONDS,
    Caller,
    Contestant,
    F16Array,
    Facts,
    Foreign,
    Link,
    Ready,
    raw_codec,
)
from p2pnode.bench.think.loops import AsyncEcho, PingPong, caller_in_loop

_DATAGRAM = 16384
_PROTOCOL = "think"
_LENGTH = struct.Struct("<I")


def quic() -> Contestant:
    """One connection, one stream."""
    return Contestant("QUIC (aioquic)", raw_codec, Link(_serve, _caller), ("aioquic",), "quic")


def _serve(ready: Ready) -> None:
    asyncio.run(_echo_forever(ready))


async def _echo_forever(ready: Ready) -> None:
    codec = raw_codec()
    certificate, key = _self_signed()
    configuration = _configuration(is_client=False)
    with tempfile.TemporaryDirectory() as directory:
        files = Path(directory) / "certificate", Path(directory) / "key"
        for file, content in zip(files, (certificate, key), strict=True):
            file.write_bytes(content)
        configuration.load_cert_chain(*files)

    def create_protocol(connection: Foreign, stream_handler: object = None) -> Foreign:
        protocol = import_module("aioquic.asyncio").QuicConnectionProtocol(connection)

        def heard(stream: int, message: bytes) -> None:
            answer = _framed(codec.encode(codec.decode(message)))
            connection.send_stream_data(stream, answer)
            protocol.transmit()

        protocol.quic_event_received = _reader(heard)
        return protocol

    # What aioquic.asyncio.serve does too, but it tells nobody which port it was given.
    new_server = partial(
        import_module("aioquic.asyncio.server").QuicServer,
        configuration=configuration,
        create_protocol=create_protocol,
    )
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(new_server, local_addr=(HOST, 0))
    port = transport.get_extra_info("sockname")[1]
    ready({"port": port, "certificate": certificate.decode()})
    await asyncio.Event().wait()


def _caller(facts: Facts) -> AbstractContextManager[Caller]:
    return caller_in_loop(_connected(facts["port"], facts["certificate"]))


@asynccontextmanager
async def _connected(port: int, certificate: str) -> AsyncIterator[AsyncEcho]:
    codec = raw_codec()
    configuration = _configuration(is_client=True)
    configuration.load_verify_locations(cadata=certificate.encode())
    connections = []

    def create_protocol(connection: Foreign, stream_handler: object = None) -> Foreign:
        connections.append(connection)
        protocol = import_module("aioquic.asyncio").QuicConnectionProtocol(connection)
        protocol.quic_event_received = _reader(
            lambda _, message: rounds.returned(codec.decode(message))
        )
        return protocol

    connect = import_module("aioquic.asyncio").connect
    async with connect(
        HOST, port, configuration=configuration, create_protocol=create_protocol
    ) as protocol:
        (connection,) = connections
        stream = connection.get_next_available_stream_id()

        def send(hidden: F16Array) -> None:
            connection.send_stream_data(stream, _framed(codec.encode(hidden)))
            protocol.transmit()

        rounds = PingPong(send)
        yield rounds.echo


def _reader(heard: Callable[[int, bytes], None]) -> Callable[[Foreign], None]:
    """Return a handler of events that puts messages together again."""
    data_received = import_module("aioquic.quic.events").StreamDataReceived
    waiting = bytearray()

    def receive(event: Foreign) -> None:
        if not isinstance(event, data_received):
            return
        waiting.extend(event.data)
        while len(waiting) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(waiting)[0]
            if len(waiting) < end:
                return
            message = bytes(waiting[_LENGTH.size : end])
            del waiting[:end]
            heard(event.stream_id, message)

    return receive


def _framed(message: bytes) -> bytes:
    return _LENGTH.pack(len(message)) + message


def _configuration(*, is_client: bool) -> Foreign:
    return import_module("aioquic.quic.configuration").QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[_PROTOCOL],
        max_datagram_size=_DATAGRAM,
        idle_timeout=float(IDLE_SECONDS),
    )


def _self_signed() -> tuple[bytes, bytes]:
    """Return a certificate of this host for a day, and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p2pnode bench")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(pem), private
