"""Tries a ggml library in a process of its own, which may crash or hang without harm.

``python -m p2pnode.engine.ggml.probe`` takes a provider's files as JSON, and prints one line of
JSON: what the library is and how far its results are from numpy's.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

from p2pnode.engine.ggml.binding import TESTED_VERSION, Ggml, load, parse_version
from p2pnode.engine.ggml.constants import DeviceType
from p2pnode.engine.ggml.providers import Provider
from p2pnode.engine.ggml.selftest import Comparison, compare, digest
from p2pnode.errors import EngineError

TIMEOUT: Final = 120.0  # seconds: a GPU's programs may have to be compiled first; a CPU takes one
_GRACE: Final = 5  # seconds for the end of a child that was ended
_MOST_OUTPUT: Final = 2**18  # bytes of an answer; a usual one has 2,000
_MOST_DEVICES: Final = 64
_MOST_TEXT: Final = 500
_FROM_OUTSIDE: Final = frozenset(
    one for one in signal.Signals if one.name in {"SIGINT", "SIGTERM", "SIGKILL"}
)
"""Signals that no library gives itself: the machine shuts down, or has no memory left."""


@dataclass(frozen=True, slots=True)
class ProbedDevice:
    """A device as the probe saw it.

    Attributes:
        name: ``CPU``, ``CUDA0``.
        description: The hardware's own name.
        type: As :class:`DeviceType`.
        free: Bytes of memory, 0 where unknown.
        total: Likewise.
        faults: What it computed wrongly, in words.
        unsupported: Operations of ours that it does not have.
    """

    name: str
    description: str
    type: int
    free: int
    total: int
    faults: tuple[str, ...]
    unsupported: tuple[str, ...]

    @property
    def problem(self) -> str:
        """Why it is not to be used, or empty; ggml ends a process that asks for what it lacks."""
        if self.faults:
            return f"it computes wrongly: {'; '.join(self.faults[:3])}"
        return f"it lacks {', '.join(self.unsupported[:3])}" if self.unsupported else ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a library is, as it said so itself.

    Attributes:
        version: Of ggml.
        commit: Of its source; may be empty.
        numerics: What decides the CPU's bits, such as ``ggml 0.26.0/haswell#1f2e3d4c``: the last
            part is of bits that were computed. Two machines of the same string compute the same.
        devices: In the library's order.
        buffer_types: The CPU's ways to rearrange weights, such as ``CPU_REPACK`` or ``AMX``.
        warnings: What the library logged, say, why it found no GPU.
        gpus: Whether its GPU back ends were loaded; False where they bring it down.
    """

    version: str
    commit: str
    numerics: str
    devices: tuple[ProbedDevice, ...]
    buffer_types: tuple[str, ...]
    warnings: tuple[str, ...]
    gpus: bool = True

    @property
    def is_newer_than_tested(self) -> bool:
        return parse_version(self.version) > TESTED_VERSION

    @property
    def has_gpu(self) -> bool:
        """Whether a GPU with memory of its own can be used."""
        return any(device.type == DeviceType.GPU and not device.problem for device in self.devices)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A library, and whether it can be used.

    Attributes:
        provider: Its files.
        report: What it is; None where it did not get that far.
        reason: Why it cannot be used, or, where it can, what it does without; may be empty.
        is_usable: Its CPU computes what numpy does.
        is_cut_short: It was ended from outside before it could say: nothing to remember.
    """

    provider: Provider
    report: Report | None
    reason: str
    is_usable: bool
    is_cut_short: bool = False

    @property
    def why_not(self) -> str:
        """The reason, with the library's name."""
        name = self.provider.name
        return self.reason if name in self.reason else f"{name}: {self.reason}"


def probe(provider: Provider, *, timeout: float = TIMEOUT) -> Candidate:
    """Try ``provider`` in a child process, and again without its GPUs if that went wrong.

    Args:
        provider: The files.
        timeout: Seconds for each try.
    """
    candidate = _try(provider, gpus=True, timeout=timeout)
    if candidate.is_usable or not provider.gpu_modules:
        return candidate
    without = _try(provider, gpus=False, timeout=timeout)
    if without.is_usable:
        return replace(without, reason=f"without its GPUs: {candidate.reason}")
    return candidate


def assess(provider: Provider, report: Report) -> Candidate:
    """Tell whether a library that answered can be used."""
    cpus = [device for device in report.devices if device.type == DeviceType.CPU]
    problems = [cpu.problem for cpu in cpus if cpu.problem]
    reason = problems[0] if problems else "" if cpus else "it has no back end for this CPU"
    return Candidate(provider, report, reason, is_usable=not reason)


def report_from_json(data: Any) -> Report:  # noqa: ANN401, whatever a process printed
    """Return the report that :meth:`Report.to_json` gave.

    Raises:
        ValueError: It is none.
    """
    try:
        devices = data["devices"]
        if not isinstance(devices, list) or not isinstance(data["gpus"], bool):
            raise ValueError("not a report")  # noqa: TRY004, one error for all that is malformed
        return Report(
            version=_text(data["version"]),
            commit=_text(data["commit"]),
            numerics=_text(data["numerics"]),
            devices=tuple(_device(device) for device in devices[:_MOST_DEVICES]),
            buffer_types=_texts(data["buffer_types"]),
            warnings=_texts(data["warnings"]),
            gpus=data["gpus"],
        )
    except (KeyError, TypeError, IndexError):
        raise ValueError("not a report") from None


def _try(provider: Provider, *, gpus: bool, timeout: float) -> Candidate:
    seconds = math.ceil(timeout) + _GRACE
    question = json.dumps({"provider": _files(provider), "gpus": gpus, "seconds": seconds})
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "GGML_NO_BACKTRACE": "1"}
    # -P: nothing is imported from the directory that this happens to run in.
    command = [sys.executable, "-P", "-m", "p2pnode.engine.ggml.probe", question]
    try:
        done = _run(command, environment, timeout)
    except subprocess.TimeoutExpired:
        return _unusable(provider, f"it did not answer within {timeout:.0f} s")
    except OSError as error:
        return _unusable(provider, f"no process could be started to try it: {error.strerror}")
    if done.returncode:
        failed = _unusable(provider, _ending(done.returncode, done.stderr))
        return replace(failed, is_cut_short=-done.returncode in _FROM_OUTSIDE)
    try:
        answer = json.loads(done.stdout)
        if "error" in answer:
            return _unusable(provider, _text(answer["error"]))
        return assess(provider, report_from_json(answer))
    except (ValueError, TypeError, RecursionError):
        return _unusable(provider, "it gave no answer that makes sense")


def _run(
    command: list[str], environment: dict[str, str], timeout: float
) -> "subprocess.CompletedProcess[bytes]":
    """Run a child; of what it prints, the end is kept, however much it is.

    Raises:
        TimeoutExpired: It took too long, and was ended.
        OSError: It cannot be started.
    """
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is for whoever asked, and no fault of the library's
    ) as child:
        kept = [bytearray(), bytearray()]
        readers = [
            threading.Thread(target=_keep_end, args=pair, daemon=True)
            for pair in zip((child.stdout, child.stderr), kept, strict=True)
        ]
        try:
            for reader in readers:
                reader.start()
            child.wait(timeout)
        finally:
            child.kill()  # does nothing to one that has ended
            for reader in readers:
                reader.join(_GRACE)  # somebody whom it started may hold the pipes open
    return subprocess.CompletedProcess(command, child.returncode, *map(bytes, kept))


def _keep_end(pipe: IO[bytes], kept: bytearray) -> None:
    with contextlib.suppress(OSError, ValueError):  # it is closed when nobody waits any more
        while piece := os.read(pipe.fileno(), 2**16):
            kept += piece
            del kept[:-_MOST_OUTPUT]


def _unusable(provider: Provider, reason: str) -> Candidate:
    return Candidate(provider, None, reason, is_usable=False)


def _ending(status: int, errors: bytes) -> str:
    """Say how a child ended, with the last line that it printed."""
    lines = errors[-4096:].decode("utf-8", "replace").strip().splitlines()
    last = lines[-1].strip()[:_MOST_TEXT] if lines else ""
    said = f": {last}" if last else ""
    if status >= 0:
        return f"trying it ended with status {status}{said}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGILL":
        return f"it crashed ({name}): it was built for another CPU{said}"
    return f"it crashed ({name}){said}"


def _files(provider: Provider) -> dict[str, Any]:
    groups = ("libraries", "cpu_modules", "gpu_modules")
    paths = {group: [str(path) for path in getattr(provider, group)] for group in groups}
    return {"name": provider.name, **paths}


def _device(data: Any) -> ProbedDevice:  # noqa: ANN401, whatever a process printed
    return ProbedDevice(
        name=_text(data["name"]),
        description=_text(data["description"]),
        type=_number(data["type"]),
        free=_number(data["free"]),
        total=_number(data["total"]),
        faults=_texts(data["faults"]),
        unsupported=_texts(data["unsupported"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")  # noqa: TRY004
    return value[:_MOST_TEXT]


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("not a list")  # noqa: TRY004
    return tuple(_text(one) for one in value[:_MOST_DEVICES])


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError("not a number")
    return value


def _report(ggml: Ggml, *, gpus: bool) -> Report:
    devices, bits = [], ""
    for device in ggml.devices():
        # An accelerator such as BLAS is never used by itself.
        tests = [] if device.type == DeviceType.ACCELERATOR else list(compare(ggml, device))
        if device.handle == ggml.cpu():
            bits = digest(tests)
        devices.append(
            ProbedDevice(
                device.name,
                device.description,
                device.type,
                device.free,
                device.total,
                faults=tuple(_fault(test) for test in tests if not test.is_right),
                unsupported=tuple(test.name for test in tests if test.unsupported),
            )
        )
    names = [ggml.backend_buft_name(kind) for kind in ggml.extra_buffer_types()]
    return Report(
        ggml.version,
        ggml.commit,
        f"{ggml.numerics()}#{bits}",
        tuple(devices),
        tuple(name.decode("utf-8", "replace") for name in names),
        tuple(ggml.warnings),
        gpus,
    )


def _fault(test: Comparison) -> str:
    return f"{test.name} is off by {test.error:.2g} (at most {test.tolerance:.2g})"


def _main(question: str) -> None:
    """Answer in the child."""
    asked = json.loads(question)
    answers = os.fdopen(os.dup(1), "w")  # drivers print what they like to the other one
    os.dup2(2, 1)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash here is an answer, no accident
        signal.alarm(asked["seconds"])  # where whoever asked was ended, and cannot end this one
    files = asked["provider"]
    provider = Provider(
        files["name"],
        tuple(map(Path, files["libraries"])),
        tuple(map(Path, files["cpu_modules"])),
        tuple(map(Path, files["gpu_modules"])),
    )
    try:
        answer = _report(load(provider, gpus=asked["gpus"]), gpus=asked["gpus"]).to_json()
    except EngineError as error:
        answer = {"error": str(error)}
    json.dump(answer, answers)
    answers.flush()
    os._exit(0)  # the ends of drivers have crashed more often than their beginnings


if __name__ == "__main__":
    _main(sys.argv[1])
