"""TLS by files: what is served, and what is said of files that cannot be used."""

import datetime
import ipaddress
import os
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from p2pnode.bench.http.wire import connected, get, reply, send_all
from p2pnode.errors import UserError
from p2pnode.interfaces.http.guard import Message, Receive, Send
from p2pnode.interfaces.http.limits import HttpLimits
from p2pnode.interfaces.http.tls import tls_context

Serving = Callable[..., AbstractContextManager[Any]]
PATIENCE = 10.0
PEM = serialization.Encoding.PEM


class Files(NamedTuple):
    certificate: Path
    key: Path
    encrypted: Path


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> Files:
    return made(tmp_path / "ours")


def made(folder: Path) -> Files:
    """Write a certificate of this host, its key, and the key encrypted."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p2pnode")])
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
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    files = Files(folder / "certificate.pem", folder / "key.pem", folder / "encrypted.pem")
    files.certificate.write_bytes(certificate.public_bytes(PEM))
    for file, encryption in (
        (files.key, serialization.NoEncryption()),
        (files.encrypted, serialization.BestAvailableEncryption(b"password")),
    ):
        file.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption))
    return files


async def scheme(scope: Message, receive: Receive, send: Send) -> None:
    body = scope["scheme"].encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def test_it_speaks_tls_and_refuses_politely_in_it(serving: Serving, files: Files) -> None:
    client_side = ssl.create_default_context(cafile=files.certificate)

    def secured(port: int) -> ssl.SSLSocket:
        return client_side.wrap_socket(connected(port), server_hostname="127.0.0.1")

    tls = tls_context(files.certificate, files.key)
    with serving(scheme, HttpLimits(connections=1), tls) as served:
        with connected(served.port) as plain:  # before anything else: it disturbs nobody
            send_all(plain, get("/"))
            assert reply(plain, PATIENCE).is_closed
        with secured(served.port) as client:
            client.sendall(get("/"))
            assert reply(client, PATIENCE, enough=b"https").status == 200
            with secured(served.port) as second:
                second.sendall(get("/"))
                found = reply(second, PATIENCE)
            assert (found.status, found.is_closed) == (503, True)
            assert b"overloaded" in found.data


def test_who_never_shakes_hands_is_cut(serving: Serving, files: Files) -> None:
    tls = tls_context(files.certificate, files.key)
    limits = HttpLimits(handshake_seconds=0.2)
    with serving(scheme, limits, tls) as served, connected(served.port) as client:
        assert reply(client, PATIENCE).is_closed


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        ("absent", "key", "cannot read the certificate .*absent"),
        ("certificate", "absent", "cannot read the private key .*absent"),
        ("folder", "key", "cannot read the certificate .*folder"),
        ("junk", "key", "no certificate in .*junk"),
        ("certificate", "junk", "no private key in .*junk"),
        ("key", "certificate", "no certificate in .*key.pem"),
        ("certificate", "other", "does not belong to the certificate"),
        ("certificate", "encrypted", "is encrypted"),
        ("cut", "key", "cannot be used for TLS"),
        ("certificate", "cut_key", "cannot be used for TLS"),
        ("huge", "key", "no certificate in .*huge"),
        ("pipe", "key", "no certificate in .*pipe"),
    ],
)
def test_what_is_wrong_with_the_files_is_said(
    tmp_path: Path, files: Files, certificate: str, key: str, words: str
) -> None:
    found = {**files._asdict(), "other": made(tmp_path / "other").key}
    for name, content in (
        ("junk", b"\x00\xff junk"),
        ("cut", files.certificate.read_bytes()[:200]),
        ("cut_key", files.key.read_bytes()[:100]),
        ("huge", files.certificate.read_bytes() + b"\n" * 2**20),
    ):
        found[name] = tmp_path / name
        found[name].write_bytes(content)
    found |= {name: tmp_path / name for name in ("absent", "folder", "pipe")}
    found["folder"].mkdir()
    os.mkfifo(found["pipe"])  # nobody writes to it
    with pytest.raises(UserError, match=words) as caught:
        tls_context(found[certificate], found[key])
    assert caught.value.hint
