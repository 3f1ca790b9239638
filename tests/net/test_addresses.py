"""Addresses: one spelling each, and no surprise from what people type."""

import ipaddress
import socket
from typing import NoReturn

import pytest
import trio
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.net.addresses import (
    address_of_sockaddr,
    format_address,
    is_loopback,
    parse_address,
    resolve,
    sockaddr_of_address,
)

hosts = st.ip_addresses().map(str)
ports = st.integers(1, 65535)


@given(hosts, ports)
def test_what_is_formatted_can_be_parsed(host: str, port: int) -> None:
    assert parse_address(format_address((host, port))) == (host, port)


@given(st.text())
def test_any_text_parses_or_is_a_user_error(text: str) -> None:
    try:
        host, port = parse_address(text)
    except UserError:
        return
    assert host
    assert 0 < port < 65536


def test_a_port_can_be_left_out() -> None:
    assert parse_address("kitchen", default_port=7) == ("kitchen", 7)
    assert parse_address("fe80::1", default_port=7) == ("fe80::1", 7)
    assert parse_address("[::1]", default_port=7) == ("::1", 7)
    with pytest.raises(UserError):
        parse_address("kitchen")


@given(hosts, ports)
def test_the_kernel_gives_back_what_it_was_given(host: str, port: int) -> None:
    mapped = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
    expected = (str(mapped), port) if mapped else (host, port)
    assert address_of_sockaddr(sockaddr_of_address((host, port), socket.AF_INET6)) == expected


def test_a_link_local_address_keeps_its_scope() -> None:
    assert address_of_sockaddr(("fe80::1", 9, 0, 3)) == ("fe80::1%3", 9)
    assert sockaddr_of_address(("fe80::1%3", 9), socket.AF_INET6) == ("fe80::1", 9, 0, 3)


async def test_a_numeric_address_resolves_to_itself() -> None:
    assert await resolve(("127.0.0.1", 9)) == (("127.0.0.1", 9),)
    assert await resolve(("::ffff:127.0.0.1", 9)) == (("127.0.0.1", 9),)


@pytest.mark.parametrize("host", ["kitchen", "a" * 300, "\udc80"])
async def test_an_unknown_host_is_a_user_error(host: str) -> None:
    trio.socket.set_custom_hostname_resolver(Nameless())
    with pytest.raises(UserError, match="unknown host"):
        await resolve((host, 9))


class Nameless(trio.abc.HostnameResolver):
    """A resolver that knows no name, so that no test asks a real one."""

    async def getaddrinfo(self, *_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    async def getnameinfo(self, *_: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")


def test_loopback_is_told_apart() -> None:
    assert is_loopback(("127.0.0.1", 9))
    assert not is_loopback(("10.0.0.1", 9))
