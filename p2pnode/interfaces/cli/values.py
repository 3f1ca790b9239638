"""Kinds of values that options take, and what is looked at before they are used."""

import math
import os
import re
import socket
import threading
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import click

from p2pnode.engine.sampling.schema_text import MOST_SCHEMA, compact_schema
from p2pnode.errors import UsageError, UserError
from p2pnode.node.places import expanded
from p2pnode.sansio import Address

_LOOKUP_SECONDS = 2.0  # for a name server's answer; without one a name is taken as it is
_SHOWN = 60  # letters of what was typed
_MOST_SYSTEM = 1024 * 1024  # bytes of a system prompt's file
_MOST_FILE = 64 * MOST_SCHEMA  # bytes read of a schema's file; space may be left out

MOST_NAME = 32
"""Bytes of a node's name that an ad has room for."""


class HomePath(click.Path):
    """A path, made absolute, in which ``~`` stands for the home directory."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 -- as click has it
        return super().convert(_expanded(self, value, param, ctx), param, ctx)


class HomeFile(click.File):
    """A file to open, or ``-``; ``~`` stands for the home directory."""

    def convert(
        self,
        value: str | os.PathLike[str] | IO[Any],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> IO[Any]:
        if isinstance(value, str) and value.startswith("~"):
            value = _expanded(self, value, param, ctx)
        return super().convert(value, param, ctx)


class NumberRange(click.FloatRange):
    """A range of numbers, and no other: NaN is neither below nor above any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 -- as click has it
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail("not a number", param, ctx)
        return number


class Schema(click.ParamType[str]):
    """A JSON schema, or the file that has it."""

    name = "schema"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = value
        if value.lstrip()[:1] not in {"{", "["}:
            path = Path(_expanded(self, value, param, ctx))
            try:
                with path.open("rb") as file:
                    text = file.read(_MOST_FILE).decode("utf-8-sig")
            except OSError as error:
                self.fail(
                    f"{value[:_SHOWN]!r}: {error.strerror}; or write it out: {{...}}", param, ctx
                )
            except UnicodeDecodeError:
                self.fail(f"{value[:_SHOWN]!r} is not text in UTF-8", param, ctx)
        try:
            return _checked_schema(text)
        except UserError as error:
            self.fail(f"{error} ({error.hint})" if error.hint else str(error), param, ctx)


class SystemPrompt(click.ParamType[str]):
    """A system prompt, or ``@`` and the file that has it; ``@@`` begins a text with ``@``."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value.startswith("@") or value.startswith("@@"):
            return _checked_text(self, value.removeprefix("@"), param, ctx)
        path = Path(_expanded(self, value[1:], param, ctx))
        try:
            with path.open("rb") as file:
                data = file.read(_MOST_SYSTEM + 1)
            text = data.decode("utf-8-sig").strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
            self.fail(f"{value[1:_SHOWN]!r}: {reason}; or write the text itself", param, ctx)
        if len(data) > _MOST_SYSTEM:
            self.fail(f"{value[1:_SHOWN]!r} has more than {_MOST_SYSTEM >> 20} MiB", param, ctx)
        return text


class StopString(click.ParamType[str]):
    """A string that ends an answer; how long it may be is checked with the others."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return _checked_text(self, value, param, ctx)


def _checked_text(
    kind: click.ParamType[str],
    text: str,
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> str:
    """Refuse bytes that are no text: they came as halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        kind.fail("it is not text in UTF-8", param, ctx)
    return text


def node_name(given: str | None, taken: Collection[str] = ()) -> str:
    """Return the node's name: as given, or the host's, cut to what an ad has room for.

    The host's gets a number where it is ``taken`` by another node of this machine: a name that two
    peers have means neither of them.

    Raises:
        UsageError: The given one cannot be shown whole.
    """
    if given is None:
        name = "".join(letter for letter in socket.gethostname() if letter.isprintable())
        numbers = ("", *(f"-{number}" for number in range(2, len(taken) + 2)))
        names = [_cut(name or "node", MOST_NAME - len(number)) + number for number in numbers]
        return next(name for name in names if name not in taken)
    size = len(given.encode("utf-8", "surrogateescape"))
    if size > MOST_NAME:
        raise UsageError(
            f"--name has {size} bytes, and others see {MOST_NAME} at most",
            hint="choose a shorter one",
        )
    if not given.strip() or not given.isprintable():
        raise UsageError("--name is not a line of printable text", hint="for instance kitchen")
    return given


def _cut(text: str, most: int) -> str:
    """Return as much of ``text`` as ``most`` bytes hold."""
    return text.encode()[:most].decode("utf-8", "ignore")


def peer_address(text: str, default_port: int) -> Address:
    """Read a ``--peer``. A bare word that is no host now is taken for a slip.

    With its port it is taken as it is: a name that nobody knows yet is looked up again and again.

    Raises:
        UsageError: It is no address.
    """
    from p2pnode.net.addresses import parse_address

    try:
        host, port = parse_address(text, default_port=default_port)
    except UserError as error:
        raise UsageError(f"--peer: {error}", hint=error.hint) from error
    if not re.fullmatch(r"[\w.:%-]+", host):
        raise UsageError(
            f"--peer: no host can be called {host[:_SHOWN]!r}",
            hint="write HOST:PORT, for instance 192.168.1.20:4747",
        )
    if host == text.strip() and not _is_known(host):
        raise UsageError(
            f"--peer: no host is called {host} now",
            hint=f"write HOST:PORT; {host}:{port}, if it is to be known later",
        )
    return host, port


def check_listen(host: str) -> None:
    """Refuse what is no address and no name of one.

    Raises:
        UsageError: It is neither.
    """
    if host and not _is_known(host):
        raise UsageError(
            f"--listen {host[:_SHOWN]}: no such address",
            hint="an address of this machine, for instance 0.0.0.0 or ::",
        )


def _checked_schema(text: str) -> str:
    """Return a schema's compact text, once it is known that it can be followed.

    Raises:
        UserError: It cannot. Without the library nobody knows here: the node says what is missing.
    """
    schema = compact_schema(text)
    if find_spec("llguidance") is not None:
        from p2pnode.engine.sampling.schema import check_schema

        check_schema(schema)
    return schema


def _expanded(
    kind: click.ParamType[Any],
    value: str | os.PathLike[str],
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> str:
    text = os.fspath(value)
    if not text or "\0" in text:
        kind.fail("an empty path names nothing" if not text else "no path holds a zero", param, ctx)
    try:
        return str(expanded(Path(text)))
    except UserError as error:
        kind.fail(f"{error} ({error.hint})", param, ctx)


def _is_known(host: str) -> bool:
    """Tell whether a host's name leads anywhere, or cannot be told soon."""
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        pass
    else:
        return True
    answers: list[bool] = []

    def ask() -> None:
        try:
            answers.append(bool(socket.getaddrinfo(host, None)))
        except (OSError, UnicodeError):
            answers.append(False)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_LOOKUP_SECONDS)
    return not answers or answers[0]
