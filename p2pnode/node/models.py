"""The models a person can name: finding them, checking them, what is known of them."""

import logging
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from p2pnode.engine.base import ModelInfo
from p2pnode.engine.stored_model import open_stored
from p2pnode.errors import ModelError, RemoteProtocolError, UserError
from p2pnode.node.catalogue import known_model
from p2pnode.node.model_cache import (
    cache_dir,
    calibration_path,
    find_installed,
    path_of,
    refuse_embedder,
)
from p2pnode.node.model_file import ModelFile, hash_tree
from p2pnode.node.model_list import find_file
from p2pnode.wire.calibration import CalibrationSet

logger = logging.getLogger("p2pnode.node.node")  # whose doing it is


def resolve(name_or_path: str) -> Path:
    """Return the file of a known model, of one in the cache, or of a path.

    Raises:
        ModelError: There is no such model here, and the hint says how to get it; or it is one that
            has no layers to serve.
    """
    model = known_model(name_or_path)
    if model is None:
        return _in_cache(name_or_path) or find_file(name_or_path)
    refuse_embedder(model.name)
    path = path_of(model)
    if not path.is_file():
        raise ModelError(
            f"the model {model.name} is not on this machine",
            hint=f"p2pnode models pull {model.name}",
        )
    if model.verified:
        is_whole = path.stat().st_size == model.size and _has_root(path, model.root)
    else:
        found = find_installed(model.name)
        is_whole = found is not None and not found.problem
    if not is_whole:
        raise ModelError(
            f"the model file {path} is broken", hint=f"p2pnode models pull {model.name}"
        )
    return path


def _in_cache(name: str) -> Path | None:
    """Return the file of a model that was pulled or linked under this name."""
    if "/" in name:
        return None
    try:
        found = find_installed(name)
    except UserError:  # the cache cannot be read: a path may be meant
        return None
    if found is None:
        return None
    if found.problem:
        raise ModelError(f"the model {found.name} cannot be used: {found.problem}")
    return found.path


def find(name_or_path: str) -> Path:
    """Return a model's file to look at, though it may be none that can be run.

    Raises:
        ModelError: It is not here, or cannot be read.
    """
    found = find_installed(name_or_path) if "/" not in name_or_path else None
    return find_file(str(found.path)) if found else find_file(name_or_path)


def files_of(path: Path) -> tuple[Path, ...]:
    """Return all the files of a model."""
    with open_stored(path) as model:
        return model.paths


def root_of(path: Path) -> str:
    """Return the root over a model's tensors, hashing it only if it changed since the last time.

    Raises:
        ModelError: It cannot be read.
    """
    return hash_tree(path, _hashes()).root


def open_model(path: Path, progress: Callable[[float], None] | None = None) -> ModelFile:
    """Say what a file holds, hashing it only if it changed since the last time.

    ``progress`` hears which part from 0 to 1 is hashed.

    Raises:
        ModelError: It cannot be run.
    """
    return ModelFile.open(path, _hashes(), progress)


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


def usable_calibrations(space_hash32: int) -> CalibrationSet | None:
    """Return :func:`state_calibrations`; a broken file only makes what is sent larger."""
    try:
        return state_calibrations(space_hash32)
    except ModelError as error:
        logger.warning("%s", error)
        return None


def _has_root(path: Path, root: str) -> bool:
    try:
        return hash_tree(path, _hashes()).root == root
    except ModelError:
        return False


def _hashes() -> Path:
    return cache_dir() / "hashes"
