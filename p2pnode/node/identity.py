"""What a node keeps on disk: its key, its swarm's secret, the peers it met, and a lock.

Every file is written whole or not at all: to a temporary name, flushed, then renamed. Files are
hostile until parsed, like the network: a broken one is named, and nothing is overwritten. What a
node can do without (remembered peers, the boot epoch) is set aside when it is broken, and said; it
never keeps a node from starting.
"""

import ipaddress
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from p2pnode import system
from p2pnode.errors import UserError
from p2pnode.node.disk import is_full, no_space
from p2pnode.node.remembered import MAX_PEERS, MAX_SECONDS, RememberedPeer
from p2pnode.sansio import NodeId

T = TypeVar("T")

SEED_BYTES = 32
SECRET_BYTES = 32
MAX_ADDRESSES = 8
MAX_FILE = 1024 * 1024
MAX_EPOCH = 2**48
"""A stored epoch beyond this was not counted by a node."""

SANE_WALL = 2**33
"""Seconds: the year 2242. A wall clock beyond this, or before 1970, is broken."""

_LEAST_ROOM = 4096
"""Bytes that any file takes on most disks, however short it is."""

_IDENTITY, _SECRET, _PEERS, _EPOCH, _LOCK = (
    "identity.key",
    "swarm.secret",
    "peers.json",
    "boot-epoch",
    "lock",
)


def lock_holder(state: Path) -> int | None:
    """Return the process that holds a state directory, as far as can be told without its lock.

    To take the lock, if only for a moment, could keep a node from starting.
    """
    try:
        with os.fdopen(_open_at_once(state / _LOCK), "rb") as file:
            words = file.read(20).decode("ascii", "replace").strip()
        if not words.isdecimal() or not 0 < int(words) < 2**31:
            return None
        command = psutil.Process(int(words)).cmdline()
    except (OSError, psutil.Error):
        return None
    return int(words) if any("p2pnode" in word for word in command) else None


class StateDirectory:
    """One node's files. Only whoever holds :meth:`lock` may run a node on them.

    Attributes:
        troubles: What was set aside or could not be kept, in words for a person.

    Raises:
        UserError: The directory cannot be made, or belongs to someone else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.troubles: list[str] = []
        self._is_given_up = False
        with _explained(path):
            with suppress(FileExistsError):  # a file: said below
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise UserError(f"{path} is no directory", hint="choose one, with P2PNODE_HOME")
        if not system.is_ours(found):
            raise UserError(
                f"{path} belongs to another account",
                hint="choose a directory of your own, with P2PNODE_HOME",
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for one node; the lock goes when the process does, however it ends.

        A write that was left behind in a thread replaces nothing once the lock is gone: by then the
        file may be another node's.

        Raises:
            UserError: Another process holds it.
        """
        path = self.path / _LOCK
        with _explained(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | system.NOFOLLOW, 0o600)
        try:
            with _explained(path):
                self._claim(descriptor)
            self._is_given_up = False
            yield
        finally:
            self._is_given_up = True
            os.close(descriptor)  # the file stays: removing it would race with the next owner

    def identity_seed(self) -> bytes:
        """Return the node's ed25519 seed, 32 bytes; the first call draws it.

        Raises:
            UserError: The file is broken, or others can read it.
        """
        seed = self._read(_IDENTITY, _secret_of, private=True)
        if seed is None:
            seed = secrets.token_bytes(SEED_BYTES)
            self._write(_IDENTITY, seed.hex())
        return seed

    def swarm_secret(self) -> bytes | None:
        """Return the secret of the swarm this node belongs to, or None before it has one.

        Raises:
            UserError: The file is broken, or others can read it.
        """
        return self._read(_SECRET, _secret_of, private=True)

    def set_swarm_secret(self, secret: bytes) -> None:
        """Belong to the swarm of ``secret``, and forget the one before."""
        if len(secret) != SECRET_BYTES:
            raise UserError(f"a swarm secret has {SECRET_BYTES} bytes")
        self._write(_SECRET, secret.hex())

    def remembered_peers(self) -> tuple[RememberedPeer, ...]:
        """Return the peers met before, those to be called first in front.

        Raises:
            UserError: The file is broken.
        """
        return self._read(_PEERS, _peers_of) or ()

    def recall_peers(self) -> tuple[RememberedPeer, ...]:
        """Return the peers met before; a broken file is set aside, and there are none."""
        return self._read_or_set_aside(_PEERS, _peers_of) or ()

    def remember_peers(self, peers: Sequence[RememberedPeer]) -> None:
        """Replace the peers remembered; of too many the first are kept.

        Raises:
            UserError: The file cannot be written; the old one is still there.
        """
        self._write(_PEERS, json.dumps([_body_of(peer) for peer in peers[:MAX_PEERS]], indent=1))

    def next_boot_epoch(self, wall_seconds: float) -> int:
        """Return a number greater than at any start before, even if the clock was set back.

        It is at least ``wall_seconds``, so that a node whose directory was lost and restored from a
        backup is not taken for an earlier run of itself. A clock that cannot be right is left out
        of it, and neither a broken file nor a full disk stops the start: should the number be too
        low then, the swarm shows us our former record, and we go beyond it.
        """
        last = self._read_or_set_aside(_EPOCH, _epoch_of) or 0
        is_sane = 0 <= wall_seconds < SANE_WALL
        wall = int(wall_seconds) if is_sane else 0
        if not is_sane:
            self.troubles.append(
                f"the clock cannot be right ({wall_seconds:.0f} s since 1970): starts are counted"
                " on from the last one"
            )
        epoch = max(last + 1, wall)
        try:
            self._write(_EPOCH, str(epoch))  # before anyone hears of it
        except UserError as error:
            self.troubles.append(str(error))
        return epoch

    def _claim(self, descriptor: int) -> None:
        if not system.lock(descriptor):
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
            raise UserError(
                f"another node (process {holder or 'unknown'}) already runs on {self.path}",
                hint="stop it (p2pnode stop), or give this one a directory and a port of its own: "
                "--state DIR --port 0",
            )
        with suppress(OSError):  # on a full disk others hear of an unknown process
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))

    def _read(self, name: str, parse: Callable[[str], T], *, private: bool = False) -> T | None:
        path = self.path / name
        with _explained(path):
            try:
                with os.fdopen(_open_at_once(path), "rb") as file:
                    mode = os.fstat(file.fileno()).st_mode
                    data = file.read(MAX_FILE + 1) if stat.S_ISREG(mode) else b""
            except FileNotFoundError:
                return None
        if not stat.S_ISREG(mode):
            raise UserError(f"{path} is no ordinary file", hint="move it away to start afresh")
        if private and mode & 0o077:
            raise UserError(
                f"other accounts can read {path}, which must stay secret",
                hint=f"chmod 600 {path}",
            )
        try:
            return parse(_text_of(data))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(
                f"{path} is broken: {error}",
                hint="restore it from a backup, or move it away to start afresh",
            ) from error

    def _read_or_set_aside(self, name: str, parse: Callable[[str], T]) -> T | None:
        """Read a file that a node can do without; a broken one gets another name."""
        try:
            return self._read(name, parse)
        except UserError as error:
            aside = self.path / f"{name}.broken"
            try:
                (self.path / name).rename(aside)
            except OSError:
                self.troubles.append(f"{error}; the node goes on without it")
            else:
                self.troubles.append(f"{error}; it is {aside.name} now, and the node goes on")
            return None

    def _write(self, name: str, text: str) -> None:
        """Replace a file, private to us, so that a crash leaves the old one or the new one."""
        path = self.path / name
        with _explained(path, max(_LEAST_ROOM, len(text))):
            descriptor, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=self.path)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                self._replace(path, Path(temporary))
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            self._settle()

    def _replace(self, path: Path, written: Path) -> None:
        if self._is_given_up:
            raise UserError(f"{path} is no longer ours to write")
        written.rename(path)

    def _settle(self) -> None:
        """Make a rename outlive a power cut, where the file system lets us."""
        with suppress(OSError):
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _open_at_once(path: Path) -> int:
    """Open without waiting: a named pipe in a file's place would hold up the node for ever."""
    return os.open(path, system.READ)


def _text_of(data: bytes) -> str:
    if len(data) > MAX_FILE:
        raise ValueError("it is too large")
    return data.decode("utf-8")


def _secret_of(text: str) -> bytes:
    data = bytes.fromhex(text.strip())
    if len(data) != SECRET_BYTES:
        raise ValueError(f"it must have {2 * SECRET_BYTES} hexadecimal digits")
    return data


def _epoch_of(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
        raise ValueError("it must be a whole number")
    epoch = int(digits)
    if epoch >= MAX_EPOCH - 1:
        raise ValueError("its number is too large")
    return epoch


def _peers_of(text: str) -> tuple[RememberedPeer, ...]:
    body = json.loads(text)
    if not isinstance(body, list) or len(body) > MAX_PEERS:
        raise ValueError(f"it must be a list of at most {MAX_PEERS} peers")
    return tuple(_peer_of(item) for item in body)


def _peer_of(item: Mapping[str, Any]) -> RememberedPeer:
    if not isinstance(item, dict):
        raise TypeError("a peer must be an object")
    node_id = bytes.fromhex(item["node_id"])
    addresses = tuple(
        (str(ipaddress.ip_address(str(host))), port) for host, port in item["addresses"]
    )
    ports_fit = all(type(port) is int and 0 < port < 65536 for _, port in addresses)
    if len(node_id) != 32 or len(addresses) > MAX_ADDRESSES or not ports_fit:
        raise ValueError("a peer has an impossible key or address")
    times = [item.get(name, 0) for name in ("session_s", "missed_s")]  # older files have none
    if not all(type(time) is int and 0 <= time <= MAX_SECONDS for time in times):
        raise ValueError("a peer has an impossible time")
    return RememberedPeer(NodeId(node_id), addresses, *times)


def _body_of(peer: RememberedPeer) -> dict[str, object]:
    return {
        "node_id": peer.node_id.hex(),
        "addresses": peer.addresses[:MAX_ADDRESSES],
        "session_s": peer.session_s,
        "missed_s": peer.missed_s,
    }


@contextmanager
def _explained(path: Path, needed: int = _LEAST_ROOM) -> Iterator[None]:
    """Say in a person's words what the file system refused; ``needed`` bytes were to be written."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            hint = "make room, or choose another directory with P2PNODE_HOME"
            raise no_space(path.parent, needed, hint) from error
        raise UserError(
            f"cannot use {path}: {error.strerror or error}",
            hint="check its permissions, or choose another directory with P2PNODE_HOME",
        ) from error
