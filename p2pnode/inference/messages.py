"""What requester and stages say to each other about a session: Sync bodies, parsed at the door.

Hidden states and tokens travel in Think frames (:mod:`p2pnode.inference.activations`); everything
here is control, UTF-8 JSON in a Sync frame with a ``method``. Sessions and nodes are hex strings
there, since JSON's numbers end at 2^53.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from p2pnode.inference.terms import LADDER, Terms
from p2pnode.sansio import NodeId
from p2pnode.terminal import label

_MOST_RUNGS = 16

MAX_CONTEXT = 1 << 20
"""Positions a session may ask for; far above any model here, far below an overflow."""


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a stage's frames come from or go to, in one epoch.

    Attributes:
        peer: The node at the other end; may be the stage's own node.
        stream: V-Frame stream id, drawn anew each epoch: a frame of an older epoch names a stream
            that no longer exists, and is dropped.
    """

    peer: NodeId
    stream: int


@dataclass(frozen=True, slots=True)
class Open:
    """Admit a session, or move an admitted one to a newer epoch; sent by the requester.

    Attributes:
        session: The requester's number of the session.
        epoch: Which chain this is, from 0; a stage ignores an older one than it knows.
        leg: The requester's number of this stage; survives epochs, as the stage's KV cache does.
        layers: Layers to run.
        positions: Positions to reserve KV memory for.
        upstream: Where activations come from.
        downstream: Where the result goes.
        out_dtype: ``f16``, or ``f32`` at a cut that the undisturbed chain did not have, where
            rounding would change the answer.
        sampling: How to draw tokens; only for the last stage, None for the others.
        sample_from: First position whose token is wanted; only for the last stage.
        terms: What it may send coarser than f16; None for nothing. A stage that does not know of
            terms sends f16.
        root: Of the model that the requester means, 32 bytes: the 32 bits of the space in every
            frame may be those of two models. None where it does not say.
    """

    session: int
    epoch: int
    leg: int
    layers: range
    positions: int
    upstream: Edge
    downstream: Edge
    out_dtype: str
    sampling: Sampling | None
    sample_from: int
    terms: Terms | None = None
    root: bytes | None = None

    @property
    def weighed(self) -> tuple[range, int, str, Sampling | None, bytes | None]:
        """What admission goes by: weighed once, and the same in every epoch."""
        return self.layers, self.positions, self.out_dtype, self.sampling, self.root


@dataclass(frozen=True, slots=True)
class Opened:
    """The stage is ready.

    Attributes:
        session: The requester's number of the session.
        epoch: Of the order that this answers.
        leg: The requester's number of the stage.
        next_position: It lacks input from here on; all below is computed, or will be.
        computed: It has computed all below; None where it does not say, as older stages do not.
    """

    session: int
    epoch: int
    leg: int
    next_position: int
    computed: int | None = None


class Refusal(StrEnum):
    """Why a stage refuses, for programs; another revision may know others."""

    LAYERS = "layers"
    DRAINING = "draining"
    CONTEXT = "context"
    SESSIONS = "sessions"
    MEMORY = "memory"
    CALIBRATION = "calibration"
    SHARE = "share"
    MODEL = "model"
    UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class Refused:
    """The stage cannot serve; ``code`` is for programs, ``reason`` for people."""

    session: int
    epoch: int
    leg: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    """All stages of the epoch are ready: send what you hold from ``position`` on, and go on."""

    session: int
    epoch: int
    leg: int
    position: int


@dataclass(frozen=True, slots=True)
class Failed:
    """An admitted stage cannot go on, or sees that ``culprit`` cannot; sent to the requester."""

    session: int
    epoch: int
    leg: int
    culprit: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Close:
    """Free the session's stages of ``epoch`` and before.

    Messages may overtake each other: a stage opened anew for a later epoch stays.
    """

    session: int
    epoch: int


Control: TypeAlias = Open | Opened | Refused | Resume | Failed | Close


def to_body(message: Control) -> dict[str, object]:
    """Return the JSON object that says ``message``."""
    body: dict[str, object] = {"session": f"{message.session:016x}"}
    body["epoch"] = message.epoch
    if not isinstance(message, Close):
        body["leg"] = message.leg
    match message:
        case Open():
            body |= {
                "layers": [message.layers.start, message.layers.stop],
                "positions": message.positions,
                "up": [message.upstream.peer.hex(), message.upstream.stream],
                "down": [message.downstream.peer.hex(), message.downstream.stream],
                "out": message.out_dtype,
                "sampling": _sampling_body(message.sampling),
                "sample_from": message.sample_from,
            }
            if message.terms is not None:
                body["coding"] = _terms_body(message.terms)
            if message.root is not None:
                body["root"] = message.root.hex()
        case Opened(next_position=position, computed=computed):
            body["position"] = position
            if computed is not None:
                body["computed"] = computed
        case Resume(position=position):
            body["position"] = position
        case Refused(code=code, reason=reason):
            body |= {"code": code, "reason": reason[:500]}
        case Failed(culprit=culprit, reason=reason):
            body |= {"culprit": culprit.hex(), "reason": reason[:500]}
    return {"method": _METHODS[type(message)], **body}


def from_body_untrusted(body: Mapping[str, object]) -> Control | None:
    """Parse a Sync body; None when its method is not one of a session's.

    Raises:
        RemoteProtocolError: The method is a session's, the rest is not.
    """
    parse = _PARSERS.get(str(body.get("method")))
    return None if parse is None else parse(_Fields(body))


class _Fields:
    """Typed, bounded access to a JSON object from the network."""

    def __init__(self, body: Mapping[str, object]) -> None:
        self._body = body

    def number(self, key: str, below: int) -> int:
        return _number(self._body.get(key), key, below)

    def optional_number(self, key: str, below: int) -> int | None:
        return self.number(key, below) if key in self._body else None

    def text(self, key: str) -> str:
        value = self._body.get(key)
        if not isinstance(value, str) or len(value) > 500:
            raise RemoteProtocolError(f"{key} is no short text")
        return value

    def reason(self) -> str:
        """Return words for people, who read them in a terminal: nothing in them moves a cursor."""
        return label(self.text("reason"))

    def session(self) -> int:
        return int.from_bytes(_hex(self._body.get("session"), 8, "session"), "big")

    def node(self, key: str) -> NodeId:
        return NodeId(_hex(self._body.get(key), 32, key))

    def pair(self, key: str) -> tuple[object, object]:
        value = self._body.get(key)
        if not isinstance(value, list) or len(value) != 2:
            raise RemoteProtocolError(f"{key} is no pair")
        return value[0], value[1]

    def layers(self) -> range:
        first, stop = self.pair("layers")
        layers = range(_number(first, "layers", 1 << 16), _number(stop, "layers", 1 << 16))
        if not layers:
            raise RemoteProtocolError("a stage runs at least one layer")
        return layers

    def root(self) -> bytes | None:
        value = self._body.get("root")
        return None if value is None else _hex(value, 32, "root")

    def edge(self, key: str) -> Edge:
        peer, stream = self.pair(key)
        return Edge(NodeId(_hex(peer, 32, key)), _number(stream, key, 1 << 32))

    def sampling(self) -> Sampling | None:
        value = self._body.get("sampling")
        if value is None:
            return None
        if not isinstance(value, dict):
            raise RemoteProtocolError("sampling is no object")
        inner = _Fields(value)
        try:
            return Sampling(
                temperature=_real(value.get("temperature"), "temperature"),
                top_k=inner.number("top_k", 1 << 31),
                top_p=_real(value.get("top_p"), "top_p"),
                seed=inner.number("seed", 1 << 64),
            )
        except ConfigError as error:
            raise RemoteProtocolError(f"impossible sampling: {error}") from error

    def terms(self) -> Terms | None:
        value = self._body.get("coding")
        if value is None:
            return None
        if not isinstance(value, dict):
            raise RemoteProtocolError("coding is no object")
        inner = _Fields(value)
        names = value.get("rungs")
        if not isinstance(names, list) or len(names) > _MOST_RUNGS:
            raise RemoteProtocolError("rungs are no short list")
        try:
            return Terms(
                mode=inner.text("mode"),
                rungs=frozenset(rung for rung in LADDER if rung in names),  # others are news
                kl=_real(value.get("kl"), "kl"),
                calibration=int.from_bytes(_hex(value.get("calibration"), 4, "calibration"), "big"),
            )
        except LocalProtocolError as error:
            raise RemoteProtocolError(f"impossible terms: {error}") from error


def _parse_open(fields: _Fields) -> Open:
    dtype = fields.text("out")
    if dtype not in {"f16", "f32"}:
        raise RemoteProtocolError(f"unknown activation type {dtype!r}")
    positions = fields.number("positions", MAX_CONTEXT + 1)
    return Open(
        *_identity(fields),
        layers=fields.layers(),
        positions=positions,
        upstream=fields.edge("up"),
        downstream=fields.edge("down"),
        out_dtype=dtype,
        sampling=fields.sampling(),
        sample_from=fields.number("sample_from", MAX_CONTEXT + 1),
        terms=fields.terms(),
        root=fields.root(),
    )


def _identity(fields: _Fields) -> tuple[int, int, int]:
    return fields.session(), fields.number("epoch", 1 << 32), fields.number("leg", 1 << 32)


_METHODS: dict[type[Control], str] = {
    Open: "x-open",
    Opened: "x-opened",
    Refused: "x-refused",
    Resume: "x-resume",
    Failed: "x-failed",
    Close: "x-close",
}

_PARSERS: dict[str, Callable[[_Fields], Control]] = {
    "x-open": _parse_open,
    "x-opened": lambda fields: Opened(
        *_identity(fields),
        fields.number("position", MAX_CONTEXT + 1),
        fields.optional_number("computed", MAX_CONTEXT + 1),
    ),
    "x-refused": lambda fields: Refused(*_identity(fields), fields.text("code"), fields.reason()),
    "x-resume": lambda fields: Resume(
        *_identity(fields), fields.number("position", MAX_CONTEXT + 1)
    ),
    "x-failed": lambda fields: Failed(*_identity(fields), fields.node("culprit"), fields.reason()),
    "x-close": lambda fields: Close(fields.session(), fields.number("epoch", 1 << 32)),
}


def _terms_body(terms: Terms) -> dict[str, object]:
    return {
        "mode": terms.mode,
        "rungs": [str(rung) for rung in LADDER if rung in terms.rungs],
        "kl": terms.kl,
        "calibration": f"{terms.calibration:08x}",
    }


def _sampling_body(sampling: Sampling | None) -> dict[str, object] | None:
    if sampling is None:
        return None
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }


def _number(value: object, key: str, below: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise RemoteProtocolError(f"{key} is not a whole number below {below}")
    return value


def _real(value: object, key: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RemoteProtocolError(f"{key} is no number")
    try:
        return float(value)
    except OverflowError as error:
        raise RemoteProtocolError(f"{key} is too large") from error


def _hex(value: object, size: int, key: str) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * size:
        raise RemoteProtocolError(f"{key} is not {size} bytes in hex")
    try:
        data = bytes.fromhex(value)
    except ValueError as error:
        raise RemoteProtocolError(f"{key} is not hex") from error
    if len(data) != size:  # fromhex passes over spaces: a node of 31 bytes is nobody
        raise RemoteProtocolError(f"{key} is not {size} bytes in hex")
    return data
