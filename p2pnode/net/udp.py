"""One UDP socket: non-blocking, dual-stack, never fragmenting, never fatal."""

import contextlib
import errno
import socket
import sys
from collections import Counter
from typing import Any

import trio

from p2pnode.errors import UserError
from p2pnode.net.addresses import address_of_sockaddr, sockaddr_of_address
from p2pnode.sansio import Address

MAX_DATAGRAM = 65_535
BUFFER_BYTES = 4 * 1024 * 1024
"""Asked for each direction: it holds 3,640 datagrams of 1200 bytes, the default 92 (measured)."""

REMEMBERED_ADDRESSES = 4096
"""Spellings kept of addresses: translating one costs as much as sending a datagram."""

PROBE_TOO_LARGE = "path probe larger than the link takes, as expected"
"""Counts the probes that end the search for the largest datagram: three a search."""

# The socket module names these on no version we support.
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_PROBE = 3
_DARWIN_IP_DONTFRAG = 28
_DARWIN_IPV6_DONTFRAG = 62


class UdpSocket:
    """Datagrams in and out, with every failure counted instead of raised.

    A datagram that cannot be sent is a datagram lost, which cores live with anyway.

    Attributes:
        address: Where it is bound, the port filled in.
        receive_buffer_bytes: What the operating system granted.
        send_buffer_bytes: The same for sending.
        never_fragments: Whether the kernel was told to drop what does not fit the path.
        counters: Failures by reason, e.g. ``send EMSGSIZE``.
    """

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self._raw = raw
        self._family = raw.family
        self._to_kernel: dict[Address, tuple[Any, ...]] = {}
        self._from_kernel: dict[tuple[Any, ...], Address] = {}
        self.counters: Counter[str] = Counter()
        self.address = address_of_sockaddr(raw.getsockname())
        self.receive_buffer_bytes = _enlarge(raw, socket.SO_RCVBUF)
        self.send_buffer_bytes = _enlarge(raw, socket.SO_SNDBUF)
        self.never_fragments = _forbid_fragments(raw)

    @property
    def fileno(self) -> int:
        return self._raw.fileno()

    async def wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self._raw)

    def receive(self) -> tuple[bytes, Address] | None:
        """Return the next datagram and its source, or None when nothing is waiting."""
        while True:
            try:
                data, sockaddr = self._raw.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return None
            except OSError as error:  # an ICMP that came back to us, reported once
                self._count("receive", error)
                continue
            return data, self._from_kernel.get(sockaddr) or self._learn(sockaddr)

    def send(self, payload: bytes, destination: Address, *, is_probe: bool = False) -> bool:
        """Send one datagram and tell whether the kernel took it.

        A path probe is there to find out whether it does: too large a one is no failure, and is
        counted under a name of its own.
        """
        try:
            self._raw.sendto(
                payload, self._to_kernel.get(destination) or self._translate(destination)
            )
        except OSError as error:
            if is_probe and error.errno == errno.EMSGSIZE:
                self.counters[PROBE_TOO_LARGE] += 1
            else:
                self._count("send", error)
            return False
        except (ValueError, UnicodeError, OverflowError):
            self.counters["send to no address"] += 1
            return False
        return True

    def close(self) -> None:
        self._raw.close()

    def _learn(self, sockaddr: tuple[Any, ...]) -> Address:
        if len(self._from_kernel) >= REMEMBERED_ADDRESSES:
            self._from_kernel.clear()
        address = self._from_kernel[sockaddr] = address_of_sockaddr(sockaddr)
        return address

    def _translate(self, destination: Address) -> tuple[Any, ...]:
        if len(self._to_kernel) >= REMEMBERED_ADDRESSES:
            self._to_kernel.clear()
        sockaddr = self._to_kernel[destination] = sockaddr_of_address(destination, self._family)
        return sockaddr

    def _count(self, action: str, error: OSError) -> None:
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        self.counters[f"{action} {name}"] += 1


def open_udp(host: str = "::", port: int = 0) -> UdpSocket:
    """Bind a UDP socket.

    Args:
        host: ``::`` (or nothing) for every interface, over IPv6 and IPv4 alike where the machine
            has IPv6; else an address or name of this machine.
        port: 0 takes a free one.

    Raises:
        UserError: The port is in use or forbidden, or the host is not this machine's.
    """
    if not 0 <= port < 65536:
        raise UserError(f"no such port: {port}", hint="choose one from 1 to 65535, or 0 for any")
    if host in ("", "::"):
        raw = _bind_dual_stack(port) or _bind(socket.AF_INET, ("", port))
        return UdpSocket(raw)
    try:
        family, _, _, _, sockaddr = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"cannot listen on {host!r}: unknown host",
            hint="give an address of this machine, or none to listen on all of them",
        ) from error
    return UdpSocket(_bind(family, sockaddr))


def _bind_dual_stack(port: int) -> socket.socket | None:
    """Bind every interface over both families, or return None on a machine without IPv6."""
    if not socket.has_dualstack_ipv6():
        return None
    try:
        return _bind(socket.AF_INET6, ("::", port), dual=True)
    except UserError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return None
        raise


def _bind(family: int, sockaddr: tuple[Any, ...], *, dual: bool = False) -> socket.socket:
    raw = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if dual:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        raw.bind(sockaddr)
    except OSError as error:
        raw.close()
        raise _explained(error, sockaddr[0], sockaddr[1]) from error
    return raw


def _explained(error: OSError, host: str, port: int) -> UserError:
    number = error.errno
    if number == errno.EADDRINUSE:
        return UserError(
            f"UDP port {port} is already in use",
            hint="another node may be running; stop it, or choose another port (0 takes any)",
        )
    if number in (errno.EACCES, errno.EPERM):
        return UserError(
            f"this account may not listen on UDP port {port}", hint="choose a port above 1023"
        )
    if number == errno.EADDRNOTAVAIL:
        return UserError(
            f"{host} is not an address of this machine",
            hint="give one that is, or none to listen on all of them",
        )
    return UserError(f"cannot listen on {host} port {port}: {error}", hint="choose another port")


def _enlarge(raw: socket.socket, option: int) -> int:
    with contextlib.suppress(OSError):  # some systems refuse what others clip
        raw.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    return raw.getsockopt(socket.SOL_SOCKET, option)


def _forbid_fragments(raw: socket.socket) -> bool:
    """Set DF and ignore the kernel's own idea of the path, so that MTU probes mean something.

    An IPv6 socket carries IPv4 too, so it is told twice.
    """
    if sys.platform == "linux":
        v4, v6, value = _IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE
    elif sys.platform == "darwin":
        v4, v6, value = _DARWIN_IP_DONTFRAG, _DARWIN_IPV6_DONTFRAG, 1
    else:
        return False
    done = []
    for level, option in ((socket.IPPROTO_IP, v4), (socket.IPPROTO_IPV6, v6)):
        if level == socket.IPPROTO_IPV6 and raw.family != socket.AF_INET6:
            continue
        try:
            raw.setsockopt(level, option, value)
            done.append(True)
        except OSError:  # macOS refuses IPv4 options on an IPv6 socket
            done.append(False)
    return all(done)
