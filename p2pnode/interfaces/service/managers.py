"""Which manager keeps services on this machine, and how it is asked."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from p2pnode.errors import UserError
from p2pnode.interfaces.service.launchd import Launchd
from p2pnode.interfaces.service.service import NOT_THERE, TIMED_OUT, Manager, Standing
from p2pnode.interfaces.service.systemd import Systemd


def manager_here() -> Manager:
    """Return the manager of this account's services.

    Raises:
        UserError: This system has none that we know.
    """
    if sys.platform == "darwin":
        return Launchd(run)
    if sys.platform == "linux":
        return Systemd(os.environ, run)
    raise UserError(
        f"services are kept by systemd and launchd, and {sys.platform} has neither",
        hint="p2pnode up --detach starts a node in the background",
    )


def run(command: Sequence[str], timeout: float = 20.0) -> tuple[int, str]:
    """Run ``command`` for ``timeout`` seconds at most; return its status and what it said."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except OSError as error:
        return NOT_THERE, str(error)
    except subprocess.TimeoutExpired:
        return TIMED_OUT, f"{command[0]} did not end within {timeout:g} s"
    return done.returncode, done.stdout.decode("utf-8", "replace")


def standings(manager: Manager) -> list[Standing]:
    """Tell how every service that we wrote stands."""
    return [manager.standing(path) for path in manager.installed()]


def is_ours(manager: Manager, path: Path) -> bool:
    """Whether we wrote the file of a service, or nobody did yet."""
    return path in manager.installed() or not os.path.lexists(path)
