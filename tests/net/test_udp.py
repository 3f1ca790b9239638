"""The UDP socket on real loopback sockets."""

import errno
import socket

import pytest

from p2pnode.errors import UserError
from p2pnode.net.udp import BUFFER_BYTES, PROBE_TOO_LARGE, UdpSocket, open_udp

needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")


async def arrival(receiver: UdpSocket) -> tuple[bytes, tuple[str, int]]:
    await receiver.wait_readable()
    datagram = receiver.receive()
    assert datagram is not None
    return datagram


async def test_a_datagram_arrives_with_its_source() -> None:
    ours, theirs = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    assert ours.send(b"hello", theirs.address)
    assert await arrival(theirs) == (b"hello", ours.address)
    assert theirs.receive() is None
    ours.close()
    theirs.close()


@needs_ipv6
async def test_a_dual_stack_socket_spells_ipv4_as_ipv4() -> None:
    both, plain = open_udp(), open_udp("127.0.0.1")
    assert both.address[0] == "::"
    port = both.address[1]
    assert plain.send(b"over IPv4", ("127.0.0.1", port))
    assert await arrival(both) == (b"over IPv4", plain.address)
    assert both.send(b"back", plain.address)
    assert await arrival(plain) == (b"back", ("127.0.0.1", port))
    six = open_udp("::1")
    assert six.send(b"over IPv6", ("::1", port))
    assert await arrival(both) == (b"over IPv6", six.address)
    for opened in (both, plain, six):
        opened.close()


def test_the_granted_buffers_are_read_back() -> None:
    opened = open_udp("127.0.0.1")
    assert opened.receive_buffer_bytes > 0
    assert opened.send_buffer_bytes > 0
    assert opened.receive_buffer_bytes <= 2 * BUFFER_BYTES
    opened.close()


def test_a_port_in_use_is_a_clear_error() -> None:
    first = open_udp("127.0.0.1")
    with pytest.raises(UserError, match=r"port \d+ is already in use") as caught:
        open_udp("127.0.0.1", first.address[1])
    assert caught.value.hint
    first.close()


def test_a_port_in_use_is_not_mistaken_for_missing_ipv6() -> None:
    first = open_udp()
    with pytest.raises(UserError, match="already in use"):
        open_udp("::", first.address[1])
    first.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 300, "\udc80"])
def test_a_host_that_is_not_ours_is_a_clear_error(host: str) -> None:
    with pytest.raises(UserError) as caught:
        open_udp(host)
    assert caught.value.hint


@pytest.mark.parametrize("port", [-1, 65536, 2**70])
def test_an_impossible_port_is_a_clear_error(port: int) -> None:
    with pytest.raises(UserError):
        open_udp("127.0.0.1", port)


def test_what_cannot_be_sent_is_counted() -> None:
    opened = open_udp("127.0.0.1")
    assert not opened.send(bytes(65_508), opened.address)
    assert opened.counters == {"send EMSGSIZE": 1}
    for nowhere in (
        ("peer.example", 1),
        ("::1", 1),
        ("127.0.0.1", 0),
        ("127.0.0.1", 65536),
        ("\0", 9),
    ):
        assert not opened.send(b"", nowhere)
    assert opened.counters["send to no address"] == 5
    opened.close()


def test_a_probe_that_is_too_large_is_no_failure() -> None:
    opened = open_udp("127.0.0.1")
    assert not opened.send(bytes(65_508), opened.address, is_probe=True)
    assert opened.counters == {PROBE_TOO_LARGE: 1}
    opened.close()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOBUFS, errno.ENETUNREACH, errno.EAGAIN])
def test_every_failure_of_the_kernel_is_a_loss_and_no_more(number: int) -> None:
    opened = UdpSocket(Refusing(number))
    assert not opened.send(b"x", ("127.0.0.1", 9))
    assert opened.counters == {f"send {errno.errorcode[number]}": 1}
    opened.close()


def test_an_icmp_reported_on_receive_is_skipped() -> None:
    opened = UdpSocket(Refusing(errno.ECONNREFUSED))
    assert opened.receive() is None
    assert opened.counters == {"receive ECONNREFUSED": 1}
    opened.close()


def test_a_probe_larger_than_the_path_is_refused_and_not_fragmented() -> None:
    opened = open_udp("127.0.0.1")
    assert opened.never_fragments
    opened.close()


class Refusing(socket.socket):
    """A bound socket whose kernel says no once, to sending and to receiving."""

    def __init__(self, number: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.bind(("127.0.0.1", 0))
        self.failures = [OSError(number, "no")]

    def sendto(self, *_: object) -> int:
        raise self.failures.pop()

    def recvfrom(self, *_: object) -> tuple[bytes, object]:
        raise self.failures.pop() if self.failures else BlockingIOError()
