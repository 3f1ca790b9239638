"""Where a person's files lie: ``~`` is expanded, and relative paths are made absolute, once."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

from p2pnode.errors import UserError

STATE_VARIABLE: Final = "P2PNODE_HOME"
CACHE_VARIABLE: Final = "P2PNODE_CACHE"
CONFIG_VARIABLE: Final = "P2PNODE_CONFIG"


def state_directory(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """Return where a node keeps its files: as told, else ``P2PNODE_HOME``, else the usual place.

    Raises:
        UserError: There is no home directory to lay it in.
    """
    if explicit is not None:
        return expanded(explicit)
    if home := environ.get(STATE_VARIABLE):
        return expanded(Path(home))
    return _usual("XDG_STATE_HOME", environ, "state")


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Return where models are kept: ``P2PNODE_CACHE``, else the user's cache directory.

    Raises:
        UserError: There is no home directory to lay it in.
    """
    if override := environ.get(CACHE_VARIABLE):
        return expanded(Path(override))
    return _usual("XDG_CACHE_HOME", environ, "cache")


def config_file(environ: Mapping[str, str]) -> Path:
    """Return where settings are kept where nobody names a file: ``config.toml`` of the usual place.

    Raises:
        UserError: There is no home directory to lay it in.
    """
    return _usual("XDG_CONFIG_HOME", environ, "config") / "config.toml"


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which a command does what it is told, whatever its owner keeps."""
    kept = {name: value for name, value in environ.items() if not name.startswith("P2PNODE_UP_")}
    return {**kept, CONFIG_VARIABLE: os.devnull}


def expanded(path: Path) -> Path:
    """Return ``path`` absolute, with ``~`` replaced by the home directory.

    Raises:
        UserError: There is no home directory, or no current one.
    """
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        if path.parts[0] != "~":
            raise UserError(
                f"{path}: there is no account called {path.parts[0][1:]}",
                hint=f"./{path} if the name begins with ~",
            ) from error
        raise _homeless() from error
    except OSError as error:
        raise UserError(
            f"the current directory cannot be used: {error.strerror or error}",
            hint="change to one that is there",
        ) from error


def _usual(
    variable: str, environ: Mapping[str, str], kind: Literal["state", "cache", "config"]
) -> Path:
    """Ask the platform; without a home it raises, or answers with a path that begins with ``~``."""
    if (base := environ.get(variable, "")).startswith("~"):  # which the platform would ignore
        return expanded(Path(base)) / "p2pnode"
    import platformdirs  # here: where only a command's name is completed, nobody asks

    places: dict[str, Callable[..., str]] = {
        "state": platformdirs.user_state_dir,
        "cache": platformdirs.user_cache_dir,
        "config": platformdirs.user_config_dir,
    }
    try:
        return expanded(Path(places[kind]("p2pnode", appauthor=False)))
    except RuntimeError as error:
        raise _homeless() from error


def _homeless() -> UserError:
    return UserError(
        "there is no home directory to keep files in",
        hint=f"set HOME, or both {STATE_VARIABLE} and {CACHE_VARIABLE}",
    )
