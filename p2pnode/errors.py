"""Every exception p2pnode raises on purpose, in one tree.

Each docstring says whom to blame and whether the object that raised it is still usable.
Anything else that escapes is a bug in p2pnode.
"""

from typing import ClassVar, Final, TypeVar

_ErrorT = TypeVar("_ErrorT", bound=BaseException)


class P2PNodeError(Exception):
    """Root of the tree; never raised itself."""


class LocalProtocolError(P2PNodeError):
    """We asked a core for something its protocol forbids: a bug on our side.

    The core's state did not change. Never caught on purpose: it propagates.
    """


class RemoteProtocolError(P2PNodeError):
    """A peer sent bytes that its protocol forbids.

    The core's state did not change, beyond a counter. Whoever feeds network bytes to a core
    counts this and drops the bytes; nothing else may come out of a function whose name ends
    in ``_untrusted``.
    """


class QueueFullError(P2PNodeError):
    """A peer has yet to acknowledge so much that no message is taken for it now; nothing changed.

    Whoever wanted to send waits or does without, and says so.
    """


class NonceReuseError(LocalProtocolError):
    """Sealing would have used a nonce twice under one key; nothing was sealed."""


class UserError(P2PNodeError):
    """Something a person asked for cannot be done; the message says what to do next.

    Faces print it in one line and exit with its status, without a traceback.

    Attributes:
        exit_status: Of the command that met it: 2 where the command line itself is wrong, else 1.
        kind: What a face in another process is told of it; :func:`error_of` is the way back.
        hint: What the person can do about it; may be empty.
    """

    exit_status: ClassVar[int] = 1
    kind: ClassVar[str] = "request"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(UserError):
    """A setting is impossible, or two settings contradict each other."""


class UsageError(ConfigError):
    """A command was called in a way that cannot work here; the same call will never work."""

    exit_status = 2


class ModelError(UserError):
    """A model file is missing, broken, or of a kind this engine cannot run."""

    kind = "model"


class UnknownModelError(ModelError):
    """A name means no model of a node, or several.

    Attributes:
        is_ambiguous: Whether it could be several.
    """

    kind = "name"

    def __init__(self, message: str, *, hint: str = "", is_ambiguous: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_ambiguous = is_ambiguous


class LengthError(UserError):
    """A prompt does not fit the model's context; a shorter one may."""

    kind = "length"


class BusyError(UserError):
    """Too many wait for the same thing here; nothing was begun, and later it may be."""

    kind = "busy"


class EngineError(UserError):
    """An engine's library failed or is not there, or a step did; that session is of no more use."""


class DeviceLostError(EngineError):
    """The device that an engine computes on failed or is gone: no session on it goes on."""


class CapacityError(UserError):
    """There is not enough memory for a session's KV cache; nothing was reserved."""


class GenerationError(UserError):
    """A generation could not start or could not go on; its peers' memory was freed."""

    kind = "generation"


class DrawError(GenerationError):
    """What was asked for cannot be drawn: no engine is to blame, and another would do no better."""


class ModelChangedError(ModelError):
    """A model's file no longer holds what was hashed; what was loaded before is still right."""


_TOLD: Final = {
    one.kind: one
    for one in (ModelError, UnknownModelError, LengthError, BusyError, GenerationError)
}


def error_of(kind: str, message: str, hint: str = "") -> UserError:
    """Return the error that another process of this machine told of; an unknown kind is plain."""
    return _TOLD.get(kind, UserError)(message, hint=hint)


def first_in(group: BaseExceptionGroup[BaseException], kind: type[_ErrorT]) -> _ErrorT | None:
    """Return the first error of a kind anywhere in a group, as nurseries raise it."""
    for error in group.exceptions:
        found = first_in(error, kind) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, kind):
            return found
    return None
