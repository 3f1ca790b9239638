"""UDP on this machine: the port, both families, buffers, and what a path carries."""

import socket
import sys
from collections.abc import Iterator, Mapping

import psutil

from p2pnode.errors import UserError
from p2pnode.interfaces.doctor.findings import Finding, mib
from p2pnode.net.udp import BUFFER_BYTES, UdpSocket, open_udp

LEAST_MTU = 1280
"""Bytes: our smallest datagrams of 1200 and the headers of IPv6 and UDP. IPv6 asks for the same."""

_UDP_SEGMENT = 103  # the socket module does not name it


def check_port(port: int, *, is_ours: bool) -> Iterator[Finding]:
    """Bind the port on both families, unless our own running node has it."""
    if is_ours:
        yield Finding("udp", "ok", f"the running node listens on port {port}")
        return
    yield _try("IPv4", "127.0.0.1", port)
    if not socket.has_ipv6:
        yield Finding("udp", "ok", "no IPv6 in this Python; IPv4 alone will do")
        return
    yield _try("IPv6", "::1", port)


def check_buffers() -> Iterator[Finding]:
    """Open a socket as a node does and see what it was granted."""
    probe = open_udp("127.0.0.1", 0)
    try:
        yield report_buffer(probe.receive_buffer_bytes, sys.platform)
        yield report_path(_interfaces(), never_fragments=probe.never_fragments)
        yield _segmentation(probe)
    finally:
        probe.close()


def report_buffer(granted: int, platform: str) -> Finding:
    """Compare the receive buffer with what a node asks for.

    Linux reports twice what it grants, the other half being its own book-keeping: socket(7).
    """
    usable = granted // 2 if platform == "linux" else granted
    what = f"receive buffer of {mib(usable)} granted, {mib(BUFFER_BYTES)} asked for"
    if usable >= BUFFER_BYTES:
        return Finding("buffers", "ok", what)
    name = "kern.ipc.maxsockbuf" if platform == "darwin" else "net.core.rmem_max"
    size = 2 * BUFFER_BYTES if platform == "darwin" else BUFFER_BYTES
    advice = f"bursts may be lost; as root: sysctl -w {name}={size}"
    return Finding("buffers", "warn", what, advice)


def report_path(mtus: Mapping[str, int], *, never_fragments: bool) -> Finding:
    """Report what the interfaces carry; the node itself finds out what a path does."""
    said = ", ".join(f"{name} {mtu}" for name, mtu in mtus.items()) or "none but loopback"
    narrow = [name for name, mtu in mtus.items() if mtu < LEAST_MTU]
    if narrow:
        what = f"{', '.join(narrow)} carries less than {LEAST_MTU} bytes at once"
        return Finding("path", "warn", what, f"raise its MTU to {LEAST_MTU} at least")
    if not never_fragments:
        what = f"MTU: {said}; the system cannot be told not to fragment"
        return Finding("path", "ok", what)
    return Finding("path", "ok", f"MTU: {said}; datagrams are never fragmented")


def _try(family: str, host: str, port: int) -> Finding:
    try:
        open_udp(host, port).close()
    except UserError as error:
        if family == "IPv6" and "in use" not in str(error):
            return Finding("udp", "ok", "no IPv6 on this machine; IPv4 alone will do")
        if "in use" not in str(error):
            return Finding("udp", "fail", f"{family}: {error}", error.hint)
        advice = "stop what uses it, or: p2pnode up --port 0"
        return Finding("udp", "warn", f"{family}: {error}", advice)
    return Finding("udp", "ok", f"{family}: port {port} is free")


def _segmentation(probe: UdpSocket) -> Finding:
    """Tell whether the kernel could take many datagrams in one call."""
    if sys.platform != "linux":
        return Finding("gso", "ok", "this system sends one datagram a call")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        try:
            raw.getsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT)
        except OSError:
            return Finding("gso", "ok", "this kernel sends one datagram a call")
    return Finding("gso", "ok", "this kernel could send many datagrams a call (not used)")


def _interfaces() -> dict[str, int]:
    """Return the MTU of every interface that is up and leads somewhere."""
    return {
        name: facts.mtu
        for name, facts in psutil.net_if_stats().items()
        if facts.isup and "loopback" not in facts.flags and facts.mtu
    }
