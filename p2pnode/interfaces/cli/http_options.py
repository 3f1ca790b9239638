"""The options that say where the HTTP API listens, and who may ask there."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import click

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli.values import HomePath

if TYPE_CHECKING:
    import ssl

    from p2pnode.interfaces.http.access import Access
    from p2pnode.interfaces.http.listening import Where

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

KEY_VARIABLE = "P2PNODE_HTTP_KEY"

_ORIGIN: Final = re.compile(
    r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@\sA-Z]+"
)  # RFC 6454, as browsers send
_NAME: Final = re.compile(r"[^:\[\]/@\s]{1,253}")


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """What a person said about the API.

    Attributes:
        key_file: Where the key is that clients must know; None for the environment's, or none.
        allow_host: Names that requests may be for.
        cors: Sites whose pages may ask.
        tls_cert: Certificate, PEM.
        tls_key: Its key, PEM.
    """

    key_file: Path | None
    allow_host: tuple[str, ...]
    cors: tuple[str, ...]
    tls_cert: Path | None
    tls_key: Path | None

    @classmethod
    def taken_from(cls, chosen: dict[str, Any]) -> Self:
        """Take them out of a command's parameters."""
        return cls(**{name: chosen.pop(name) for name in cls.__slots__})

    def as_words(self) -> list[str]:
        """Return them as a command line has them."""
        paths = {"key-file": self.key_file, "tls-cert": self.tls_cert, "tls-key": self.tls_key}
        return [
            *(f"--{name}={path.absolute()}" for name, path in paths.items() if path is not None),
            *(f"--allow-host={name}" for name in self.allow_host),
            *(f"--cors={origin}" for origin in self.cors),
        ]

    def access(self, place: Where) -> Access:
        """Return who may ask at ``place``.

        Raises:
            UserError: The key cannot be read, others than this machine might ask without one, or
                what was named is no site or no host.
        """
        from p2pnode.interfaces.http.access import Access
        from p2pnode.interfaces.http.key_file import checked_key, key_of
        from p2pnode.net.addresses import is_loopback

        self._check_names()
        file, said = self.key_file, os.environ.get(KEY_VARIABLE, "")
        key = "" if file is None else key_of(file)
        if file is None and said:
            key = checked_key(said, f"${KEY_VARIABLE}", "set another, or name a --key-file")
        is_local = place.host == "localhost" or is_loopback((place.host, place.port))
        if not key and not is_local:
            raise UsageError(
                f"others than this machine could ask at {place}, so a key is needed",
                hint="--key-file FILE makes one; or listen on this machine alone: --http 8080",
            )
        return Access(key, self.allow_host, self.cors)

    def _check_names(self) -> None:
        for origin in self.cors:
            if not _ORIGIN.fullmatch(origin):
                raise UsageError(
                    f"--cors: {origin!r} is no site as browsers name one",
                    hint="write https://chat.example or http://localhost:3000, in small letters "
                    "and without a path; * is any",
                )
        for name in self.allow_host:
            if not _NAME.fullmatch(name):
                raise UsageError(
                    f"--allow-host: {name!r} is no host's name",
                    hint="write it as a browser's address has it, without a port: chat.example",
                )

    def tls(self) -> ssl.SSLContext | None:
        """Return what speaks TLS; None for plain HTTP.

        Raises:
            UserError: The files are not what they should be.
        """
        from p2pnode.interfaces.http.tls import tls_context

        certificate, key = self.tls_cert, self.tls_key
        if (certificate is None) != (key is None):
            raise UsageError("--tls-cert and --tls-key go together", hint="name both files")
        return None if certificate is None or key is None else tls_context(certificate, key)

    def url(self, listener: socket.socket) -> str:
        """Return where clients find the API on ``listener``."""
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'http' if self.tls_cert is None else 'https'}://{shown}:{port}"

    def reaching(self, listener: socket.socket) -> list[str]:
        """Return what else a client must know: what others call this machine, and the key."""
        host, port = listener.getsockname()[:2]
        lines: list[str] = []
        if ip_address(host).is_unspecified:
            scheme = "http" if self.tls_cert is None else "https"
            name = socket.gethostname()
            lines.append(f"for other machines: {scheme}://{name}:{port}, or an address of this one")
        if self.key_file is not None:
            lines.append(f"clients send the key in {self.key_file}")
        elif os.environ.get(KEY_VARIABLE):
            lines.append(f"clients send the key in ${KEY_VARIABLE}")
        return lines


def http_options(command: CommandT) -> CommandT:
    """Add the options that :class:`HttpOptions` takes."""
    options = (
        click.option(
            "--key-file",
            type=HomePath(path_type=Path, dir_okay=False),
            help="Clients must know the key in this file; it is made where there is none.  "
            f"[else: ${KEY_VARIABLE}]",
        ),
        click.option(
            "--allow-host",
            multiple=True,
            metavar="NAME",
            help="A name that requests may be for, besides this machine's own and addresses.",
        ),
        click.option(
            "--cors", multiple=True, metavar="ORIGIN", help="A site whose pages may ask; * for any."
        ),
        click.option(
            "--tls-cert",
            type=HomePath(path_type=Path),
            help="Speak TLS, with this certificate (PEM).",
        ),
        click.option("--tls-key", type=HomePath(path_type=Path), help="Its private key (PEM)."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def listening(where: str, options: HttpOptions) -> socket.socket:
    """Return a socket that listens at ``where``, once it is known that all options can be had.

    Raises:
        UserError: They cannot.
    """
    from p2pnode.interfaces.http.listening import listen, parse_where

    place = parse_where(where)
    options.access(place)
    options.tls()
    return listen(place.host, place.port)
