"""A user unit of systemd: no account but one's own is needed, nor root."""

import getpass
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from p2pnode.errors import UserError
from p2pnode.interfaces.service.service import TIMED_OUT, Run, Service, Standing
from p2pnode.interfaces.service.words import exec_line, exec_words, quoted
from p2pnode.node.places import expanded

MARK: Final = "# Written by p2pnode service install; p2pnode service remove takes it away."

STOPPING: Final = 30
"""Seconds for an end: a drain (10), a farewell (1), and a machine that is busy."""

_STARTING = 90.0  # seconds that an install waits; the service itself may take longer
_STEPS_SINCE = 254  # the version of systemd that waits longer from restart to restart

_UNIT = """{mark}
[Unit]
Description=p2pnode: a peer of a swarm that runs language models

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
{environment}Restart=on-failure
{backoff}
# Called in a way that cannot work: the same call will never work.
RestartPreventExitStatus=2
# It was told to stop while it started.
SuccessExitStatus=130
# A first start fetches and hashes the model.
TimeoutStartSec=infinity
TimeoutStopSec={stopping}
# The node ends its own children, after the answers that need them.
KillMode=mixed

# A core would hold keys and prompts.
LimitCORE=0
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
# Netlink tells of this machine's addresses.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
{sandbox}
[Install]
WantedBy=default.target
"""

_SANDBOX = """# Nothing can be written but this.
ProtectSystem=strict
ReadWritePaths={places}
"""

_GRADUALLY = "RestartSec=2\nRestartSteps=6\nRestartMaxDelaySec=300"
_EVENLY = "RestartSec=15"


class Systemd:
    """The manager of this account's units; without a bus to it, files are all there is."""

    def __init__(self, environ: Mapping[str, str], run: Run) -> None:
        self._run = run
        base = environ.get("XDG_CONFIG_HOME", "")
        config = Path(base) if base.startswith("/") else expanded(Path("~")) / ".config"
        self._folder = config / "systemd" / "user"

    def path(self, title: str) -> Path:
        return self._folder / f"{title}.service"

    def installed(self) -> list[Path]:
        found = sorted(self._folder.glob("p2pnode*.service"))
        return [path for path in found if _read(path).startswith(MARK)]

    def text(self, service: Service) -> str:
        places = [service.state, service.cache, Path("/tmp"), Path("/var/tmp")]  # noqa: S108
        words = [quoted(f"-{place}") for place in places]
        sandbox = _SANDBOX.format(places=" ".join([*words, "-%h/.cache", "-%h/.nv", "%t"]))
        variables = (quoted(f"{name}={value}") for name, value in service.environment.items())
        return _UNIT.format(
            mark=MARK,
            command=exec_line(service.command),
            environment="".join(f"Environment={variable}\n" for variable in variables),
            backoff=_GRADUALLY if self._version() >= _STEPS_SINCE else _EVENLY,
            stopping=STOPPING,
            sandbox=sandbox if self._can_protect() else "",
        )

    def begin(self, title: str) -> Iterator[str]:
        unit = f"{title}.service"
        if not self._is_reachable():
            yield "systemctl --user reaches no manager here; where it does, run:"
            yield "  systemctl --user daemon-reload"
            yield f"  systemctl --user enable --now {unit}"
            yield f"and, to start at boot and not at login:  loginctl enable-linger {_account()}"
            return
        self._demand("daemon-reload")
        self._demand("enable", unit)
        status, said = self._run(["systemctl", "--user", "restart", unit], timeout=_STARTING)
        if status == TIMED_OUT:
            yield f"{title} is still starting; p2pnode service status tells how it goes"
        elif status:
            hint = f"journalctl --user -u {unit} -n 20; p2pnode service remove takes it away again"
            raise _refused(said, hint)
        if not Path("/var/lib/systemd/linger", _account()).exists():
            yield "it runs while you are logged in; to start at boot, and go on afterwards:"
            yield f"  loginctl enable-linger {_account()}"

    def end(self, title: str) -> Iterator[str]:
        unit = f"{title}.service"
        if self._is_reachable():
            self._run(["systemctl", "--user", "disable", "--now", unit], timeout=STOPPING + 10.0)
        else:
            (self._folder / "default.target.wants" / unit).unlink(missing_ok=True)
            yield "systemctl --user reaches no manager here: if it runs, p2pnode stop ends it"

    def forget(self) -> None:
        self._run(["systemctl", "--user", "daemon-reload"])

    def standing(self, path: Path) -> Standing:
        command = _command_of(_read(path))
        words = ["systemctl", "--user", "show", path.name, "--no-pager"]
        words.append("--property=ActiveState,SubState,MainPID,UnitFileState")
        status, said = self._run(words)
        if status:
            wanted = (self._folder / "default.target.wants" / path.name).exists()
            return Standing(path.stem, path, command, enabled=wanted)
        facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        pid = facts.get("MainPID", "0")
        return Standing(
            path.stem,
            path,
            command,
            enabled=facts.get("UnitFileState") == "enabled",
            running=facts.get("ActiveState") == "active",
            pid=int(pid) if pid.isdecimal() and pid != "0" else None,
            said=f"{facts.get('ActiveState', '')} ({facts.get('SubState', '')})",
        )

    def _is_reachable(self) -> bool:
        status, _ = self._run(["systemctl", "--user", "show", "--property=Version"])
        return status == 0

    def _demand(self, *words: str) -> None:
        status, said = self._run(["systemctl", "--user", *words])
        if status:
            raise _refused(said, f"systemctl --user {words[0]} shows more")

    def _version(self) -> int:
        _, said = self._run(["systemctl", "--version"])
        match = re.match(r"systemd (\d{1,4})\b", said)
        return int(match[1]) if match else 0

    def _can_protect(self) -> bool:
        """Try whether a unit of this account may be shown the file system read-only.

        It takes a user namespace, which some systems refuse to ordinary accounts: a unit that asks
        for it does not start there.
        """
        program = shutil.which("true")
        if program is None or not self._is_reachable():
            return False
        words = ["systemd-run", "--user", "--quiet", "--wait", "--collect"]
        words += ["--property=ProtectSystem=strict", "--property=ReadWritePaths=/tmp", program]
        status, _ = self._run(words)
        return status == 0


def _read(path: Path) -> str:
    """Return a unit's text; empty where it is no file that can be read."""
    try:
        with path.open("rb") as file:
            return file.read(65_536).decode("utf-8", "replace")
    except OSError:
        return ""


def _command_of(text: str) -> tuple[str, ...]:
    match = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    try:
        return tuple(exec_words(match[1])) if match else ()
    except ValueError:
        return ()


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _refused(said: str, hint: str) -> UserError:
    line = next((line for line in said.splitlines() if line.strip()), "it does not say why")
    return UserError(f"systemd refused: {line.strip()[:300]}", hint=hint)
