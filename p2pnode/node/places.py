"""Where a person's files lie: ``~`` is expanded, and relative paths are made absolute, once."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import platformdirs

from p2pnode.errors import UserError

STATE_VARIABLE: Final = "P2PNODE_HOME"
CACHE_VARIABLE: Final = "P2PNODE_CACHE"


def state_directory(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """Return where a node keeps its files: as told, else ``P2PNODE_HOME``, else the usual place.

    Raises:
        UserError: There is no home directory to lay it in.
    """
    if explicit is not None:
        return expanded(explicit)
    if home := environ.get(STATE_VARIABLE):
        return expanded(Path(home))
    return _usual(
        "XDG_STATE_HOME", environ, lambda: platformdirs.user_state_dir("p2pnode", appauthor=False)
    )


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Return where models are kept: ``P2PNODE_CACHE``, else the user's cache directory.

    Raises:
        UserError: There is no home directory to lay it in.
    """
    if override := environ.get(CACHE_VARIABLE):
        return expanded(Path(override))
    return _usual(
        "XDG_CACHE_HOME", environ, lambda: platformdirs.user_cache_dir("p2pnode", appauthor=False)
    )


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


def _usual(variable: str, environ: Mapping[str, str], place: Callable[[], str]) -> Path:
    """Ask the platform; without a home it raises, or answers with a path that begins with ``~``."""
    if (base := environ.get(variable, "")).startswith("~"):  # which the platform would ignore
        return expanded(Path(base)) / "p2pnode"
    try:
        return expanded(Path(place()))
    except RuntimeError as error:
        raise _homeless() from error


def _homeless() -> UserError:
    return UserError(
        "there is no home directory to keep files in",
        hint=f"set HOME, or both {STATE_VARIABLE} and {CACHE_VARIABLE}",
    )
