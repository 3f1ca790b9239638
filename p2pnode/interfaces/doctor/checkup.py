"""The whole checkup: every check in the order in which a person would fix things."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.node_options import DEFAULT_PORT
from p2pnode.interfaces.doctor.findings import Check, Finding, examine
from p2pnode.interfaces.doctor.state import boot_epoch, check_state, lock_holder
from p2pnode.net.control_client import ControlClient
from p2pnode.net.control_lines import find_control_path
from p2pnode.node.snapshot import NodeSnapshot
from p2pnode.node.snapshot_json import from_json


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be looked at.

    Attributes:
        state: The state directory.
        models: Names or files of the models a node here would run.
        port: UDP port to look at; None for the running node's, else the one by default.
        kv_bytes: Memory it would offer for KV caches.
        settings: What is wrong with the settings that commands go by.
    """

    state: Path
    models: tuple[str, ...]
    port: int | None
    kv_bytes: int
    settings: Check


def run_checks(subject: Subject) -> Iterator[Finding]:
    """Run every check, yielding what each finds as it finds it."""
    running = _Running(subject.state)
    for topic, check in _checks(subject, running):
        yield from examine(topic, check)


class _Running:
    """The node that runs on the state directory, looked up once."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.picture: NodeSnapshot | None = None

    def look(self) -> Iterator[Finding]:
        holder = lock_holder(self._state)
        try:
            with ControlClient(find_control_path(self._state)) as client:
                self.picture = from_json(client.call("snapshot"))
        except UserError as error:
            yield _unheard(holder, error)
            return
        yield Finding("running", "ok", f"a node runs here, process {holder or 'unknown'}")

    @property
    def ports(self) -> list[int]:
        """The UDP ports that it listens on; none where no node answers."""
        addresses = self.picture.listening if self.picture is not None else ()
        return sorted({int(address.rpartition(":")[2]) for address in addresses})


def _unheard(holder: int | None, error: UserError) -> Finding:
    if holder is None:
        return Finding("running", "ok", "no node runs here", "start one: p2pnode up")
    what = f"process {holder} runs a node here that does not answer: {error}"
    return Finding("running", "fail", what, f"if it stays so: kill {holder}, and start it again")


def _checks(subject: Subject, running: _Running) -> Iterator[tuple[str, Check]]:
    """Yield each topic with its check, which imports what it needs only when it runs."""
    yield "python", _python
    yield "settings", subject.settings
    yield "state", partial(check_state, subject.state)
    yield "control", partial(_runtime, subject.state)
    yield "running", running.look
    yield "clock", partial(_clock, subject.state)
    yield "processor", _processor
    yield "timers", _timers
    yield "udp", partial(_port, subject, running)
    yield "buffers", _buffers
    yield "multicast", _multicast
    yield "model", partial(_model, subject)
    yield "engine", partial(_engine, subject)
    yield "memory", partial(_memory, subject, running)
    yield "swarm", partial(_swarm, subject, running)


def _python() -> list[Finding]:
    from p2pnode.interfaces.doctor.python import check_python

    return check_python()


def _runtime(state: Path) -> list[Finding]:
    from p2pnode.interfaces.doctor.runtime import check_runtime

    return check_runtime(state)


def _clock(state: Path) -> Iterator[Finding]:
    from p2pnode.interfaces.doctor.clock import check_clock

    return check_clock(_epoch_if_whole(state))


def _epoch_if_whole(state: Path) -> int | None:
    try:
        return boot_epoch(state)
    except (UserError, OSError):  # said under "state" already
        return None


def _processor() -> Iterator[Finding]:
    from p2pnode.interfaces.doctor.processor import check_processor

    return check_processor()


def _timers() -> Iterator[Finding]:
    from p2pnode.interfaces.doctor.processor import check_timers

    return check_timers()


def _port(subject: Subject, running: _Running) -> Iterator[Finding]:
    from p2pnode.interfaces.doctor.network import check_port

    ours = running.ports
    looked_at = ours or [DEFAULT_PORT] if subject.port is None else [subject.port]
    for port in looked_at:
        yield from check_port(port, is_ours=port in ours)


def _buffers() -> Iterator[Finding]:
    from p2pnode.interfaces.doctor.network import check_buffers

    return check_buffers()


def _multicast() -> Iterator[Finding]:
    from p2pnode.interfaces.doctor.multicast import check_multicast

    return check_multicast()


def _model(subject: Subject) -> Iterator[Finding]:
    from p2pnode.interfaces.doctor.model import check_model

    for model in subject.models:
        yield from check_model(model)


def _engine(subject: Subject) -> Iterator[Finding]:
    from p2pnode.interfaces.doctor.engine import check_engine
    from p2pnode.node.model_cache import is_missing

    for model in subject.models:
        is_here = model != "none" and not is_missing(model)
        yield from check_engine(model if is_here else "none")


def _memory(subject: Subject, running: _Running) -> Iterator[Finding]:
    from p2pnode.interfaces.doctor.model import check_memory

    picture = running.picture
    kv_bytes = subject.kv_bytes if picture is None else picture.kv_total_bytes
    is_loaded = picture is not None and picture.state == "serving"
    for model in subject.models:
        yield from check_memory(model, kv_bytes, is_loaded=is_loaded)


def _swarm(subject: Subject, running: _Running) -> Iterator[Finding]:
    from p2pnode.interfaces.doctor.swarm import explain_swarm

    if running.picture is None:
        return
    yield from explain_swarm(running.picture, _kv_cost(subject.models[0], running.picture))


def _kv_cost(model: str, picture: NodeSnapshot) -> int:
    """Return what a token costs in a layer, where the model looked at is the running node's."""
    from p2pnode.interfaces.doctor.model import find_model
    from p2pnode.node.models import describe_model

    try:
        info = describe_model(find_model(model))
    except UserError:
        return 0
    return info.kv_bytes_per_token_layer if info.space_hash32 == picture.space_hash32 else 0
