"""Conversations in files."""

import os
from pathlib import Path
from typing import Final

from p2pnode.errors import UserError
from p2pnode.interfaces.chat.conversation import MOST_BYTES, Conversation, conversation_of
from p2pnode.node.places import expanded
from p2pnode.replacing import replace_file
from p2pnode.system import READ

_REPLACE: Final = "--replace"
_MOST_FILE: Final = 2 * MOST_BYTES  # spelled as JSON a conversation is longer


def save(conversation: Conversation, target: str) -> Path:
    """Keep a conversation in the file that ``target`` names, and return that.

    The file is private. One that is there stays as it is, unless ``--replace`` stands before it.

    Raises:
        UserError: It cannot be written, or is there already.
    """
    first, _, rest = target.partition(" ")
    may_replace = first == _REPLACE and bool(rest.strip())
    path = expanded(Path(rest.strip() if may_replace else target))
    content = conversation.to_json().encode()
    try:
        if may_replace:
            replace_file(path, content)
        else:
            _create(path, content)
    except FileExistsError as error:
        raise UserError(
            f"{path} is there already", hint=f"another name, or /save {_REPLACE} {path}"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {_reason(error)}", hint="another file") from error
    return path


def load(source: str) -> Conversation:
    """Read the conversation that a file has.

    Raises:
        UserError: The file cannot be read, or has none.
    """
    path = expanded(Path(source))
    try:
        descriptor = os.open(path, READ)  # pipes wait
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(_MOST_FILE + 1) or b""
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {_reason(error)}") from error
    if len(data) > _MOST_FILE:
        raise UserError(f"{path} has more than {_MOST_FILE >> 20} MiB, and is no conversation")
    try:
        return conversation_of(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8") from error
    except UserError as error:
        raise UserError(f"{path} is no conversation: {error}", hint=error.hint) from error


def _create(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, whole or not at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
