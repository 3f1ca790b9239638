"""The key that clients must know: in a file that only its owner reads, or said otherwise."""

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from p2pnode.errors import UserError
from p2pnode.system import READ, is_private

_MOST_BYTES: Final = 4096
_LEAST: Final = 16  # characters


def key_of(path: Path) -> str:
    """Return the key in ``path``, made there if there is no such file.

    Raises:
        UserError: It cannot be read or made, others can read it, or it is no key.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    except OSError as error:
        raise UserError(
            f"cannot make a key in {path}: {error.strerror}", hint="choose another file"
        ) from error
    key = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{key}\n")
    return key


def _read(path: Path) -> str:
    try:
        with os.fdopen(os.open(path, READ), "rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(_MOST_BYTES) if stat.S_ISREG(found.st_mode) else b""
    except OSError as error:
        raise UserError(
            f"cannot read the key in {path}: {error.strerror}", hint="choose another file"
        ) from error
    if not is_private(found):
        raise UserError(f"others can read the key in {path}", hint=f"chmod 600 {path}")
    return checked_key(data.decode("ascii", "replace"), str(path), "remove it, and one is made")


def checked_key(text: str, where: str, hint: str) -> str:
    """Return the key that ``text`` is, without the white space around it.

    Raises:
        UserError: It is none that a client could say.
    """
    key = text.strip()
    if len(key) < _LEAST or not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            f"{where} holds no key: one is {_LEAST} or more letters, digits and signs in a line",
            hint=hint,
        )
    return key
