"""What a service is, whoever keeps it: a command, its environment, and where it may write."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from p2pnode.errors import UsageError
from p2pnode.node.places import expanded

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_KEPT: Final = (
    *("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME"),
    *("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"),
)
"""Variables that decide where files lie and what computes, beside our own."""

_PLACES = re.compile(r".*_(HOME|CACHE|DIR)")
_SECRETS = re.compile(r".*(KEY|TOKEN|SECRET|PASSWORD).*")
"""Variables that no file of ours is to hold: units can be read by whoever is on this account."""


@dataclass(frozen=True, slots=True)
class Service:
    """A node to be kept running.

    Attributes:
        title: Its name among services: ``p2pnode``, or ``p2pnode-NAME``.
        command: What runs it; its first word is an absolute path.
        environment: Variables that the command is given, beside the account's own.
        state: The node's state directory.
        cache: Where models are kept.
    """

    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    state: Path
    cache: Path


@dataclass(frozen=True, slots=True)
class Standing:
    """How a service stands; None is what cannot be told.

    Attributes:
        title: Its name among services.
        path: The file that describes it.
        command: What that file has run.
        enabled: Whether it starts by itself.
        running: Whether it runs now.
        pid: Its process.
        said: The manager's own word for its state.
    """

    title: str
    path: Path
    command: tuple[str, ...]
    enabled: bool | None = None
    running: bool | None = None
    pid: int | None = None
    said: str = ""


class Manager(Protocol):
    """What keeps services: systemd, or launchd."""

    def path(self, title: str) -> Path:
        """Return the file that describes a service."""

    def installed(self) -> list[Path]:
        """Return the files of all services that we wrote."""

    def text(self, service: Service) -> str:
        """Return what that file holds.

        Raises:
            UserError: It cannot hold one of the words.
        """

    def begin(self, title: str) -> Iterator[str]:
        """Start a service now and always, and yield what there is to say about it.

        Raises:
            UserError: It did not start.
        """

    def end(self, title: str) -> Iterator[str]:
        """Stop a service and start it no more; its file is still there."""

    def forget(self) -> None:
        """Read the files anew, once one is gone."""

    def standing(self, path: Path) -> Standing:
        """Tell how the service of a file stands."""


NOT_THERE, TIMED_OUT = 127, 124
"""Statuses of a command that could not be run, or not to its end, as a shell has them."""


class Run(Protocol):
    """Runs a command for some seconds at most, and returns its status and what it said."""

    def __call__(self, command: Sequence[str], timeout: float = 20.0) -> tuple[int, str]: ...


def title_of(name: str | None) -> str:
    """Return what a service is called among services.

    Raises:
        UsageError: No service can be called so.
    """
    if name is None:
        return "p2pnode"
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"no service can be called {name[:40]!r}",
            hint="letters, digits, - and _, 32 at most; for instance kitchen",
        )
    return f"p2pnode-{name}"


def kept_environment(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the variables that a node started here would see, and the names of secret ones."""
    kept, secret = dict[str, str](), list[str]()
    for name in sorted(environ):
        if not name.startswith("P2PNODE_") and name not in _KEPT:
            continue
        if _SECRETS.fullmatch(name):
            secret.append(name)
        elif _PLACES.fullmatch(name) and environ[name]:
            kept[name] = str(expanded(Path(environ[name])))
        else:
            kept[name] = environ[name]
    return kept, secret


def absolute(word: str) -> str:
    """Return ``word``, or the absolute path where it is that of a file or folder from here."""
    if os.sep not in word or "\0" in word:
        return word
    path = expanded(Path(word))
    return str(path) if path.exists() else word
