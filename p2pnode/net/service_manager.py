"""A word to whatever started this process as a service: sd_notify(3), without its library."""

import os
import socket
from contextlib import suppress

_VARIABLE = "NOTIFY_SOCKET"

READY = "READY=1"
STOPPING = "STOPPING=1"


class ServiceManager:
    """Hears how its service does; nobody is there where no socket is named in the environment."""

    def __init__(self, path: str) -> None:
        """``path`` is a Unix datagram socket; with an ``@`` before it, an abstract one."""
        self._address = "\0" + path[1:] if path.startswith("@") else path

    def tell(self, *lines: str) -> None:
        """Say ``lines``, each ``NAME=value``; one that cannot be said is lost, and nobody waits."""
        if not self._address.startswith(("/", "\0")):
            return  # no socket, or one of a kind that only virtual machines have
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), self._address)


def service_manager() -> ServiceManager:
    """Return the one that waits for this process; no process that it starts speaks for it."""
    return ServiceManager(os.environ.pop(_VARIABLE, ""))
