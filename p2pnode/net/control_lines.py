"""The control socket's language: one JSON object a line, and where the socket lies.

-> {"id": 1, "method": "generate", "params": {"prompt": "hi"}}
<- {"id": 1, "event": {"text": "Hello"}}
<- {"id": 1, "result": {"tokens": 12}}      or
<- {"id": 1, "error": {"message": "...", "hint": "..."}}
"""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pnode import system
from p2pnode.errors import RemoteProtocolError, UserError
from p2pnode.net.control_door import is_ours

MAX_LINE = 4 * 1024 * 1024
MAX_ID = 2**53
CHUNK = 65_536
MAX_SOCKET_PATH = 100
"""Bytes: the kernel's limit is 108 on Linux and 104 on macOS, its final zero included."""


@dataclass(frozen=True, slots=True)
class Request:
    """One line of a client."""

    id: int
    method: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A result that is JSON already: large ones are made off the loop."""

    text: bytes


def render(value: object, default: Callable[[Any], object] | None = None) -> Rendered:
    """Write ``value`` as JSON, without a line's end; ``default`` is :func:`json.dumps`'s.

    Raises:
        TypeError, ValueError: JSON cannot write it.
    """
    text = json.dumps(value, default=default, ensure_ascii=False, separators=(",", ":"))
    return Rendered(text.encode("utf-8", "surrogatepass"))


def encode_line(body: Mapping[str, Any]) -> bytes:
    """Return ``body`` as one line.

    Raises:
        TypeError, ValueError: JSON cannot write it.
    """
    return render(body).text + b"\n"


def encode_request(number: int, method: str, params: Mapping[str, Any] | Rendered) -> bytes:
    """Return the line that asks for something.

    Raises:
        TypeError, ValueError: JSON cannot write it.
        UserError: It is longer than a node reads.
    """
    given = params if isinstance(params, Rendered) else render(params)
    line = b'{"id":%d,"method":%b,"params":%b}\n' % (number, render(method).text, given.text)
    if len(line) > MAX_LINE:
        raise UserError(
            f"what is asked takes {len(line) / 2**20:.1f} MiB, and a node reads "
            f"{MAX_LINE >> 20} MiB at the most",
            hint="shorten it, or give it in parts",
        )
    return line


def encode_result(number: int, result: object) -> bytes:
    """Return the line that ends a request with ``result``, which may be :class:`Rendered`.

    Raises:
        TypeError, ValueError: JSON cannot write it.
    """
    if not isinstance(result, Rendered):
        return encode_line({"id": number, "result": result})
    return b'{"id":%d,"result":%b}\n' % (number, result.text)


def parse_object_untrusted(line: bytes) -> dict[str, Any]:
    """Parse a line into a JSON object.

    Raises:
        RemoteProtocolError: It is none; nothing else ever.
    """
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("not a line of JSON") from error
    if not isinstance(body, dict):
        raise RemoteProtocolError("not a JSON object")
    return body


def parse_request_untrusted(line: bytes) -> Request:
    """Parse a client's line.

    Raises:
        RemoteProtocolError: It is no request; nothing else ever.
    """
    body = parse_object_untrusted(line)
    number, method, params = body.get("id"), body.get("method"), body.get("params", {})
    if type(number) is not int or abs(number) > MAX_ID:
        raise RemoteProtocolError('"id" must be a whole number')
    if not isinstance(method, str) or not isinstance(params, dict):
        raise RemoteProtocolError('"method" must be a text and "params" an object')
    return Request(number, method, params)


class LineBuffer:
    """Cuts a stream into lines, never holding more than one line and one chunk."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0

    def feed_untrusted(self, data: bytes) -> list[bytes]:
        """Add what arrived and return the lines it completed.

        Raises:
            RemoteProtocolError: A line is longer than ``MAX_LINE``.
        """
        self._data += data
        lines = []
        while (end := self._data.find(b"\n", self._searched)) >= 0:
            lines.append(bytes(self._data[:end]))
            del self._data[: end + 1]
            self._searched = 0
        self._searched = len(self._data)
        if self._searched > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            raise RemoteProtocolError("a line is too long")
        return lines


def control_path(state_dir: Path) -> Path:
    """Return where the node of ``state_dir`` listens, creating the runtime directory.

    The socket does not lie in the state directory because a Unix socket's path may have about a
    hundred bytes only.

    Raises:
        UserError: The runtime directory belongs to someone else, or lets others in.
    """
    directory = runtime_directories()[0]
    _own_directory(directory)
    return directory / _socket_name(state_dir)


def find_control_path(state_dir: Path) -> Path:
    """Return where a client should look for the node of ``state_dir``.

    A node started from a desktop session and a client over SSH may disagree about the runtime
    directory, so every place it could be is looked at.
    """
    name = _socket_name(state_dir)
    paths = [directory / name for directory in runtime_directories()]
    return next((path for path in paths if is_ours(path)), paths[0])


def runtime_directories() -> list[Path]:
    """Return where control sockets may lie, the directory to use first."""
    fallback = Path(tempfile.gettempdir()) / f"p2pnode-{system.account()}"
    found = [fallback]
    for runtime in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{system.account()}"):
        directory = Path(os.path.expanduser(runtime or ""))  # noqa: PTH111 -- never raises
        if runtime and _owned(directory):
            found.insert(len(found) - 1, directory / "p2pnode")
    short = [path for path in found if len(os.fsencode(path)) + 22 <= MAX_SOCKET_PATH]
    return list(dict.fromkeys(short)) or [Path("/", "tmp", fallback.name)]


def _socket_name(state_dir: Path) -> str:
    digest = hashlib.sha256(os.fsencode(state_dir.expanduser().resolve())).hexdigest()
    return f"{digest[:16]}.sock"


def _own_directory(directory: Path) -> None:
    """Make ``directory``, or insist that the one there is ours alone."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise UserError(
            f"cannot use the runtime directory {directory}: {error.strerror}",
            hint="set XDG_RUNTIME_DIR to a directory of yours",
        ) from error
    if not stat.S_ISDIR(found.st_mode) or not system.is_private(found):
        raise UserError(
            f"the runtime directory {directory} is not yours alone",
            hint="someone else may have made it; remove it, or set XDG_RUNTIME_DIR to another",
        )


def _owned(directory: Path) -> bool:
    try:
        found = directory.stat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and system.is_ours(found)
