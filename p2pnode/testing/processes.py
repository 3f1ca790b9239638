"""Real node processes on this machine, for demonstrations and measurements.

Each has its own state directory and identity. None outlives its command: a node started here
stops when its standard input closes, which the operating system sees to even if we are killed.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from p2pnode.errors import UserError
from p2pnode.net.control_client import ControlClient
from p2pnode.net.control_lines import find_control_path
from p2pnode.node.places import without_settings
from p2pnode.node.snapshot import NodeSnapshot
from p2pnode.node.snapshot_json import from_json
from p2pnode.phrases import plural

_STARTING = 30.0  # seconds until a node prints where it listens
_STOPPING = 5.0
_GLANCE = 0.1

UP = ("p2pnode", "up", "--json", "--with-parent")
"""The module that a node process runs, and what it is told first."""


class NodeProcess:
    """One node process.

    Attributes:
        name: What it is called.
        pid: Its process id.
        node_id: Its key, in hex.
        address: Where it listens, ``host:port``.
        http: Where its API is, a URL; empty without one.
    """

    def __init__(
        self,
        name: str,
        state: Path,
        options: Sequence[str],
        checkout: Path | None = None,
        program: Sequence[str] = UP,
    ) -> None:
        self.name = name
        self._state = state
        self._log = (state / "stderr").open("w+b")
        python = sys.executable if checkout is None else str(checkout / ".venv" / "bin" / "python")
        environment = without_settings(os.environ)
        if checkout is not None:
            environment["PYTHONPATH"] = str(checkout)
        command = [
            *(python, "-m", *program),
            *("--state", str(state), "--name", name, "--listen", "127.0.0.1", "--port", "0"),
            *options,
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=checkout,
            env=environment,
            start_new_session=True,  # a Ctrl-C is ours to handle: the node is told properly
        )
        self.pid = self._process.pid
        self.node_id = ""
        self.address = ""
        self.http = ""

    def wait_until_up(self) -> None:
        """Wait for the node to say where it listens.

        Raises:
            UserError: It ended instead; the message has its last words.
        """
        stdout = self._process.stdout
        line = stdout.readline() if stdout is not None else b""
        if not line:
            self._process.wait(_STARTING)
            raise UserError(f"node {self.name} did not start: {self.last_words()}")
        facts = json.loads(line)
        self.node_id, self.address = facts["node_id"], facts["listening"][0]
        self.http = facts.get("http", "")

    def client(self, timeout: float | None = 10.0) -> ControlClient:
        return ControlClient(find_control_path(self._state), timeout=timeout)

    def snapshot(self) -> NodeSnapshot:
        with self.client() as client:
            return from_json(client.call("snapshot"))

    def last_words(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:].decode("utf-8", "replace").strip()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()
        self._process.wait()

    def leave(self) -> None:
        """Tell it to leave the swarm; it goes in its own time."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """Let it leave the swarm, and wait until it is gone."""
        self.leave()
        try:
            self._process.wait(_STOPPING)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


class LocalSwarm:
    """Some node processes with one swarm secret, in a temporary directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._secret = secrets.token_hex(32)
        self.nodes: list[NodeProcess] = []

    def start(
        self,
        name: str,
        *options: str,
        checkout: Path | None = None,
        program: Sequence[str] = UP,
    ) -> NodeProcess:
        """Start a node; it is up when :meth:`NodeProcess.wait_until_up` returns.

        ``checkout`` is that of another revision, with its own ``.venv``, to run the node from;
        ``program`` another module that runs one, and what that is told before the options.
        """
        state = self._directory / name
        state.mkdir(mode=0o700)
        secret = state / "swarm.secret"
        secret.touch(mode=0o600)
        secret.write_text(self._secret + "\n")
        node = NodeProcess(name, state, options, checkout, program)
        self.nodes.append(node)
        return node

    def forget(self, node: NodeProcess) -> None:
        """See to the end of a node that was killed or has left; it is no longer one of ours."""
        node.stop()
        self.nodes.remove(node)

    def wait_until_serving(
        self, *, limit: float = 60.0, show: Callable[[list[NodeSnapshot]], None] | None = None
    ) -> bool:
        """Wait until each node serves and sees every other; help where multicast does not work.

        Returns:
            Whether they found each other by themselves.

        Raises:
            UserError: They did not get so far in ``limit`` seconds.
        """
        began, alone = time.monotonic(), True
        while True:
            pictures = [node.snapshot() for node in self.nodes]
            if show is not None:
                show(pictures)
            if all(self._is_settled(picture) for picture in pictures):
                return alone
            waited = time.monotonic() - began
            if alone and waited > limit / 4 and not any(map(_has_met, pictures)):
                alone = False
                self._introduce()
            if waited > limit:
                states = "; ".join(f"{one.name}: {one.state}, {one.reason}" for one in pictures)
                raise UserError(
                    f"the nodes were not ready after {limit:.0f} s ({states})",
                    hint="p2pnode doctor",
                )
            time.sleep(_GLANCE)

    def _is_settled(self, picture: NodeSnapshot) -> bool:
        serving = [peer for peer in picture.peers if peer.state == "serving" and peer.connected]
        met = {peer.node_id for peer in serving} | {picture.node_id}
        ours = {node.node_id for node in self.nodes}
        return picture.state == "serving" and ours <= met and not picture.missing_layers

    def _introduce(self) -> None:
        first, *others = self.nodes
        for node in others:
            with node.client() as client:
                client.call("connect", {"address": first.address})


@contextmanager
def local_swarm(tell: Callable[[str], None] = lambda _: None) -> Iterator[LocalSwarm]:
    """Yield an empty swarm; whatever is started in it has ended afterwards.

    ``tell`` hears that they are stopped, where something cut the swarm short: that takes a while.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="p2pnode-"))
        stack.enter_context(terminable())
        swarm = LocalSwarm(Path(directory))
        try:
            yield swarm
        except BaseException:
            tell(f"\nstopping {plural(len(swarm.nodes), 'node')} ...")
            raise
        finally:
            for node in swarm.nodes:
                node.leave()  # all at once: each takes a second or two
            for node in swarm.nodes:
                node.stop()


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into an orderly end, as Ctrl-C is; once, since some senders send it twice."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _has_met(picture: NodeSnapshot) -> bool:
    return any(peer.connected for peer in picture.peers)
