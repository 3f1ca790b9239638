"""One HTTP client for models: redirects, a token, proxies and time limits, with nothing installed.

The token goes to the host that it is for and to no other, and over plain HTTP to this machine
alone. A redirect from HTTPS to HTTP is refused.
"""

import http.client
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from p2pnode import __version__
from p2pnode.errors import UserError
from p2pnode.node.url import PORTS, joined, split_url
from p2pnode.terminal import label

_CHUNK: Final = 2**18
_MOST_REASON: Final = 200  # letters
_SAFE: Final = "/%:@!$&'()*+,;=~-._?"  # of a path and query that may be quoted already
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how often a server is waited for.

    Attributes:
        connect: Seconds for a connection, TLS included.
        answer: Seconds until the head of an answer is here, whole.
        silence: Seconds without a byte of the body.
        pace: Bytes that must come in each ``window``; less is a cut connection. A modem does more.
        window: Seconds.
        redirects: In a row.
        idle_tries: Tries in a row that bring nothing.
        tries: In all, for one file.
        longest_wait: Seconds; a server that asks for more is not waited for.
    """

    connect: float = 15.0
    answer: float = 30.0
    silence: float = 30.0
    pace: int = 30_000
    window: float = 30.0
    redirects: int = 5
    idle_tries: int = 5
    tries: int = 50
    longest_wait: float = 120.0


class InterruptedTransferError(Exception):
    """It did not work this time; another try may.

    Attributes:
        wait: Seconds that the server asked for; None where it did not say.
    """

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Token:
    """A secret, and where it may be sent: the origin of ``endpoint``."""

    secret: str
    endpoint: str


BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""


class _Response(http.client.HTTPResponse):
    """A response whose body ends with its last chunk: what may follow has no end of its own."""

    def _read_and_discard_trailer(self) -> None:
        """Leave it: the connection is closed after each answer."""


class Answer:
    """An answer whose body has not been read; to be used in a ``with`` block.

    Attributes:
        url: Whose answer it is, after all redirects.
        status: As the server gave it.
        linked_size: What the answers on the way said of the file: bytes, or None.
        linked_sha256: As above: 64 hex digits, or empty.
    """

    def __init__(
        self,
        url: str,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        limits: Limits,
    ) -> None:
        self.url = url
        self._limits = limits
        self.status = response.status
        self.linked_size: int | None = None
        self.linked_sha256 = ""
        self._connection = connection
        self._response = response

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def header(self, name: str) -> str:
        return self._response.headers.get(name, "").strip()

    def number(self, name: str) -> int | None:
        """Return a header that is a whole number, or None."""
        text = self.header(name)
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None

    def wait(self) -> float | None:
        """Return the seconds that the server asks to wait, by a number or a date; None for none."""
        seconds = self.number("Retry-After")
        if seconds is not None:
            return float(seconds)
        try:
            when = parsedate_to_datetime(self.header("Retry-After"))
            if when.tzinfo is None:
                return None
            return max(0.0, round((when - datetime.now(UTC)).total_seconds(), 1))
        except (ValueError, OverflowError):  # the latter of a zone beyond all days
            return None

    def read(self) -> bytes:
        """Return what came next of the body; nothing at its end.

        Raises:
            InterruptedTransferError: The connection broke, or was silent for too long.
        """
        try:
            return self._response.read1(_CHUNK)
        except TimeoutError as error:
            raise InterruptedTransferError(f"{self.host} has fallen silent") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise InterruptedTransferError(f"{self.host} broke off: {_reason(error)}") from error

    def refuse_busy(self, longest: float) -> None:
        """Take the status of a server that has no time, and how long it asks to wait.

        Raises:
            InterruptedTransferError: It may be asked again, after a wait of at most ``longest``.
            UserError: It asks to wait for longer.
        """
        if self.status not in BUSY:
            return
        status = f"{self.status} {http.client.responses.get(self.status, '')}".strip()
        wait = self.wait()
        if wait is not None and wait > longest:
            raise UserError(
                f"{self.host} asks to wait {wait:g} seconds ({status})",
                hint="run the same command again later",
            )
        raise InterruptedTransferError(f"{self.host} is busy ({status})", wait)

    def read_all(self, most: int, clock: Callable[[], float] = time.monotonic) -> bytes:
        """Return the rest of a short body.

        Raises:
            InterruptedTransferError: As :meth:`read`, or it comes too slowly.
            UserError: It has more than ``most`` bytes.
        """
        body, began, limits = bytearray(), clock(), self._limits
        while part := self.read():
            body += part
            if len(body) > most:
                raise UserError(f"{self.host} sends more than {most} bytes where few are expected")
            windows = (clock() - began) / limits.window
            if windows > 1 and len(body) < windows * limits.pace:
                raise InterruptedTransferError(f"{self.host} sends next to nothing")
        return bytes(body)


class Web:
    """Asks servers, one request at a time."""

    def __init__(self, limits: Limits | None = None, token: Token | None = None) -> None:
        self.limits = limits or Limits()
        self._token = token

    @property
    def has_token(self) -> bool:
        """Whether there is a token; :meth:`sends_token` says whether it goes anywhere."""
        return self._token is not None

    def sends_token(self, url: str) -> bool:
        return bool(self._authorisation(split_url(url)))

    def get(self, url: str, headers: Mapping[str, str] | None = None, how: str = "GET") -> Answer:
        """Ask for ``url``; return the first answer that is no redirect, whatever its status.

        Raises:
            InterruptedTransferError: The server cannot be reached now, or is too slow.
            UserError: The address or a redirect is none that is followed.
        """
        first, size, digest = url, None, ""
        for _ in range(self.limits.redirects + 1):
            answer = self._ask(url, headers or {}, how)
            size = size if size is not None else answer.number("X-Linked-Size")
            digest = digest or _sha256_of(answer.header("X-Linked-ETag"))
            if answer.status not in _REDIRECTS:
                answer.linked_size, answer.linked_sha256 = size, digest
                return answer
            target = answer.header("Location")
            answer.close()
            url = _redirected(url, target)
        raise UserError(
            f"{first} redirects more than {self.limits.redirects} times",
            hint="give the address of the file itself",
        )

    def _ask(self, url: str, headers: Mapping[str, str], how: str) -> Answer:
        parts = split_url(url)
        connection, target = _connection(parts, self.limits.connect)
        connection.response_class = _Response
        sent = {
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": f"p2pnode/{__version__}",
            **_proxy_headers(parts),
            **self._authorisation(parts),
            **headers,
        }
        try:
            connection.connect()
            connection.sock.settimeout(self.limits.silence)
            with _broken_after(connection, self.limits.answer):
                connection.request(how, target, headers=sent)
                response = connection.getresponse()
        except TimeoutError as error:
            connection.close()
            raise InterruptedTransferError(f"{parts.netloc} does not answer in time") from error
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise UserError(
                f"the certificate of {parts.hostname} cannot be trusted: {error.verify_message}",
                hint="check this machine's clock and certificates (SSL_CERT_FILE)",
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise InterruptedTransferError(
                f"{parts.netloc} cannot be reached: {_reason(error)}"
            ) from error
        return Answer(url, connection, response, self.limits)

    def _authorisation(self, parts: SplitResult) -> dict[str, str]:
        token = self._token
        if token is None or _origin(parts) != _origin(split_url(token.endpoint)):
            return {}
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            return {}
        return {"Authorization": f"Bearer {token.secret}"}


@contextmanager
def _broken_after(connection: http.client.HTTPConnection, seconds: float) -> Iterator[None]:
    """Break a connection whose answer takes longer than ``seconds``, however it dribbles."""
    over = threading.Event()
    opened = connection.sock

    def break_it() -> None:
        over.set()
        with suppress(OSError):  # it is closed already
            socket.socket.shutdown(opened, socket.SHUT_RDWR)  # TLS's own would upset the reader

    timer = threading.Timer(seconds, break_it)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if over.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()


def _redirected(url: str, target: str) -> str:
    """Return where a redirect leads.

    Raises:
        UserError: Nowhere, or out of HTTPS.
    """
    if not target:
        raise UserError(f"{split_url(url).netloc} redirects, and does not say where to")
    following = joined(url, target)
    parts = split_url(following)
    if split_url(url).scheme == "https" and parts.scheme != "https":
        raise UserError(
            f"{split_url(url).hostname} redirects from https to http, which is not followed: "
            "anybody on the way could change the file",
            hint="give another address",
        )
    return following


def _connection(parts: SplitResult, timeout: float) -> tuple[http.client.HTTPConnection, str]:
    """Return a connection to ask on, by way of the proxy of this machine, and what to ask for."""
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_SAFE)
    proxy = _proxy(parts)
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context()
            if proxy is None:
                return http.client.HTTPSConnection(
                    host, port, timeout=timeout, context=context
                ), target
            through = http.client.HTTPSConnection(
                proxy.hostname or "", proxy.port or 8080, timeout=timeout, context=context
            )
            through.set_tunnel(host, port, headers=_proxy_login(proxy))
            return through, target
        if proxy is None:
            return http.client.HTTPConnection(host, port, timeout=timeout), target
        return http.client.HTTPConnection(
            proxy.hostname or "", proxy.port or 8080, timeout=timeout
        ), f"http://{parts.netloc.rpartition('@')[2]}{target}"
    except http.client.InvalidURL as error:
        raise UserError(f"not an address of the web: {error}") from error


def _proxy(parts: SplitResult) -> SplitResult | None:
    """Return the proxy of the environment for an address; this machine itself needs none."""
    host = parts.hostname or ""
    if host in _LOOPBACK or proxy_bypass(host):
        return None
    found = getproxies().get(parts.scheme)
    return split_url(found if "//" in found else f"http://{found}") if found else None


def _proxy_login(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {b64encode(login).decode()}"}


def _proxy_headers(parts: SplitResult) -> dict[str, str]:
    proxy = _proxy(parts) if parts.scheme == "http" else None
    return _proxy_login(proxy) if proxy else {}


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or PORTS[parts.scheme]


def _sha256_of(etag: str) -> str:
    """Return the SHA-256 that an entity tag is, if it is one."""
    text = etag.removeprefix("W/").strip('"').lower()
    return text if len(text) == 64 and set(text) <= _HEX else ""


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return label(str(error))[:_MOST_REASON] or type(error).__name__  # it may quote the server
