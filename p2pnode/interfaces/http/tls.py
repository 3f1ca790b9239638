"""TLS by files that a person names."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from p2pnode import system
from p2pnode.errors import UserError

_MOST_BYTES = 2**20


class _EncryptedError(Exception):
    """OpenSSL asks for a password."""


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what a server needs to speak TLS 1.2 and up.

    Args:
        certificate: PEM, the server's own first, then what signed it.
        key: PEM, not encrypted: the server starts without anybody there.

    Raises:
        UserError: A file is missing or is not what it should be, or the two do not belong together.
    """
    _check(certificate, b"-----BEGIN CERTIFICATE-----", "certificate")
    _check(key, b"PRIVATE KEY-----", "private key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, _no_password)
    except _EncryptedError:
        raise UserError(
            f"the private key {key} is encrypted",
            hint=f"openssl pkey -in {key} -out plain.pem writes it without a password",
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UserError(
                f"the private key {key} does not belong to the certificate {certificate}",
                hint="name the two files that were made together",
            ) from error
        raise UserError(
            f"{certificate} and {key} cannot be used for TLS: {error.reason or error}",
            hint="both must be whole PEM files",
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {certificate} or {key}: {error.strerror}") from error
    return context


def _check(file: Path, mark: bytes, what: str) -> None:
    """Say clearly which file is the wrong one; OpenSSL does not."""
    try:
        # A pipe that nobody writes to is empty, and not waited for.
        with os.fdopen(os.open(file, system.READ), "rb") as opened:
            data = opened.read(_MOST_BYTES + 1) or b""
    except OSError as error:
        raise UserError(
            f"cannot read the {what} {file}: {error.strerror}",
            hint="TLS needs a certificate and its private key, each a PEM file",
        ) from error
    if mark not in data or len(data) > _MOST_BYTES:
        raise UserError(f"no {what} in {file}", hint=f"it must be a PEM file with {mark.decode()}")


def _no_password() -> str:
    raise _EncryptedError
