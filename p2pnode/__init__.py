"""A peer-to-peer node that lets ordinary machines run language models together.

For programs: :class:`Node` is a node in their own process, under trio, and :class:`Client` asks the
one that runs on this machine. What they take and give is here too; docs/guides/python.md shows it.
"""

from importlib import import_module

from p2pnode.compiled import begin

__version__ = "0.1.0"

CORES = begin()
"""How the cores run, compiled or pure: decided before any of them is imported."""

_EVENTS = (
    "Answer",
    "Broken",
    "Embeddings",
    "Event",
    "Plan",
    "Planned",
    "Queued",
    "Remark",
    "Repaired",
    "Rest",
    "Shortened",
    "Stage",
    "Token",
    "TokenChance",
    "ToolCall",
    "Waiting",
)
_ERRORS = ("BusyError", "GenerationError", "LengthError", "ModelError", "UserError")
_FOUND_IN = {
    **dict.fromkeys(_EVENTS, "p2pnode.interfaces.python.events"),
    **dict.fromkeys(_ERRORS, "p2pnode.errors"),
    "AsyncRunningAnswer": "p2pnode.interfaces.python.answer",
    "Ask": "p2pnode.wire.messages",
    "Client": "p2pnode.interfaces.python.client",
    "Critique": "p2pnode.wire.messages",
    "DType": "p2pnode.wire.dtypes",
    "Frame": "p2pnode.wire.vframe",
    "Frames": "p2pnode.interfaces.python.frames",
    "Node": "p2pnode.interfaces.python.node",
    "NodeSnapshot": "p2pnode.node.snapshot",
    "PeerView": "p2pnode.node.peer_snapshot",
    "ReceivedFrame": "p2pnode.interfaces.python.frames",
    "RunningAnswer": "p2pnode.interfaces.python.client",
    "Slice": "p2pnode.wire.vframe",
}
"""Where what programs use is; imported when it is first asked for, for it takes a while. Type
checkers read the same in ``__init__.pyi``."""

__all__ = ["CORES", "__version__", *_FOUND_IN]  # noqa: PLE0604 -- names all


def __getattr__(name: str) -> object:
    if name not in _FOUND_IN:
        raise AttributeError(f"module 'p2pnode' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_FOUND_IN[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
