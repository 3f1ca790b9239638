"""The models a person can name: finding them, checking them, what is known of them."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from p2pnode.engine.base import ModelInfo
from p2pnode.errors import ModelError, RemoteProtocolError
from p2pnode.node.model_cache import KNOWN_MODELS, cache_dir, calibration_path, find_file, path_of
from p2pnode.node.model_file import ModelFile, hash_tree
from p2pnode.wire.calibration import CalibrationSet


def resolve(name_or_path: str) -> Path:
    """Return the file of a known model or of a path.

    Raises:
        ModelError: There is no such model here; the hint says how to get it.
    """
    model = KNOWN_MODELS.get(name_or_path)
    if model is None:
        return find_file(name_or_path)
    path = path_of(model)
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


def _has_root(path: Path, root: str) -> bool:
    try:
        return hash_tree(path, _hashes()).root == root
    except ModelError:
        return False


def _hashes() -> Path:
    return cache_dir() / "hashes"
