"""Noticing that an interface appeared, vanished or changed its address, while the node runs.

Linux tells over a netlink socket (man 7 rtnetlink). What it tells is not parsed: any message is
a reason to read the whole table again, so a lost or unknown one costs nothing. Other systems are
asked every two seconds, and Linux too where netlink is denied (some sandboxes).
"""

import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

POLL_SECONDS = 2.0
"""Between two readings where the system tells nothing: the table is to be true within 5 s."""

IDLE_SECONDS = 30.0
"""Between two readings where it does: what netlink does not tell, such as a proven address."""

SETTLE_SECONDS = 0.5
"""A change comes in several messages (link, address, route); they are taken together."""

_NETLINK_ROUTE = 0
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE."""

logger = logging.getLogger(__name__)


class Changes(Protocol):
    """Where changes of the table of interfaces are waited for."""

    async def wait(self) -> None:
        """Return when the table may have changed."""


class NetlinkChanges:
    """Changes of links, addresses or routes, as the kernel tells them."""

    def __init__(self) -> None:
        """Raises OSError where netlink cannot be used."""
        self._raw = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
        try:
            self._raw.bind((0, _GROUPS))
            self._raw.setblocking(False)
        except BaseException:
            self._raw.close()
            raise

    async def wait(self) -> None:
        with trio.move_on_after(IDLE_SECONDS):
            await trio.lowlevel.wait_readable(self._raw)
        await trio.sleep(SETTLE_SECONDS)
        self._drain()

    def close(self) -> None:
        self._raw.close()

    def _drain(self) -> None:
        while True:
            try:
                self._raw.recv(65536)
            except OSError:  # nothing more, or ENOBUFS: messages were lost, which is a change too
                return


class PolledChanges:
    """A change may have come every :data:`POLL_SECONDS`."""

    async def wait(self) -> None:
        await trio.sleep(POLL_SECONDS)


async def watch_interfaces(look: Callable[[], Awaitable[None]]) -> None:
    """Call ``look`` whenever the interfaces may have changed, until cancelled."""
    changes = _netlink()
    if changes is None:
        await look_after_each(PolledChanges(), look)
        return
    try:
        await look_after_each(changes, look)
    finally:
        changes.close()


async def look_after_each(changes: Changes, look: Callable[[], Awaitable[None]]) -> None:
    """Call ``look`` after each of ``changes``."""
    while True:
        await changes.wait()
        await look()


def _netlink() -> NetlinkChanges | None:
    if sys.platform != "linux":
        return None
    try:
        return NetlinkChanges()
    except OSError as error:
        logger.info("interfaces are read every %g s: netlink says %s", POLL_SECONDS, error)
        return None
