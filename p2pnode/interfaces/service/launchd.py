"""An agent of macOS's launchd: a property list in ~/Library/LaunchAgents."""

import os
import plistlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from xml.parsers.expat import ExpatError

from p2pnode.errors import UserError
from p2pnode.interfaces.service.service import Run, Service, Standing
from p2pnode.node.places import expanded

STOPPING: Final = 30
"""Seconds for an end, as systemd's are."""

_THROTTLE = 15  # seconds at least from start to start
_DOMAIN = "org.p2pnode"


class Launchd:
    """The manager of this account's agents."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._library = expanded(Path("~")) / "Library"

    def path(self, title: str) -> Path:
        return self._library / "LaunchAgents" / f"{_DOMAIN}.{title}.plist"

    def installed(self) -> list[Path]:
        return sorted((self._library / "LaunchAgents").glob(f"{_DOMAIN}.p2pnode*.plist"))

    def text(self, service: Service) -> str:
        # With --json it says errors alone: the file that keeps them has no bound.
        command = [*service.command, *(() if "--json" in service.command else ("--json",))]
        if unprintable := [word for word in command if not word.isprintable()]:
            raise UserError(f"a property list cannot hold {ascii(unprintable[0])[:80]}")
        body = {
            "Label": f"{_DOMAIN}.{service.title}",
            "ProgramArguments": command,
            "EnvironmentVariables": dict(service.environment),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": _THROTTLE,
            "ExitTimeOut": STOPPING,
            "ProcessType": "Interactive",  # else the system slows down what computes
            "HardResourceLimits": {"Core": 0},  # a core would hold keys and prompts
            "StandardErrorPath": str(self._library / "Logs" / f"{service.title}.log"),
        }
        return plistlib.dumps(body, sort_keys=False).decode()

    def begin(self, title: str) -> Iterator[str]:
        path = self.path(title)
        self._run(["launchctl", "bootout", f"{_target()}/{path.stem}"])  # an older one
        status, said = self._run(["launchctl", "bootstrap", _target(), str(path)])
        if status:
            raise UserError(
                f"launchd refused: {said.strip()[:300] or 'it does not say why'}",
                hint=f"launchctl bootstrap {_target()} {path} shows more",
            )
        yield "it runs while you are logged in"

    def end(self, title: str) -> Iterator[str]:
        self._run(
            ["launchctl", "bootout", f"{_target()}/{self.path(title).stem}"],
            timeout=STOPPING + 10.0,
        )
        yield from ()

    def forget(self) -> None:
        """Do nothing: launchd has forgotten what was booted out."""

    def standing(self, path: Path) -> Standing:
        title, command = path.stem.removeprefix(f"{_DOMAIN}."), _command_of(path)
        status, said = self._run(["launchctl", "print", f"{_target()}/{path.stem}"])
        if status:
            return Standing(title, path, command, enabled=None, running=False)
        state = re.search(r"^\s*state = (.+)$", said, re.MULTILINE)
        pid = re.search(r"^\s*pid = (\d{1,10})$", said, re.MULTILINE)
        word = state[1] if state else ""
        return Standing(
            title,
            path,
            command,
            enabled=True,
            running=word == "running",
            pid=int(pid[1]) if pid else None,
            said=word,
        )


def _target() -> str:
    return f"gui/{os.getuid()}"


def _command_of(path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            body: Any = plistlib.load(file)
        words = body["ProgramArguments"]
    except (OSError, ValueError, KeyError, TypeError, ExpatError, RecursionError):
        return ()
    return tuple(str(word) for word in words) if isinstance(words, list) else ()
