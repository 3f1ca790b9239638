"""What requester and stages say to each other about a session: Sync bodies, parsed at the door.

Hidden states and tokens travel in Think frames (:mod:`p2pnode.inference.activations`); everything
here is control, UTF-8 JSON in a Sync frame with a ``method``. Sessions and nodes are hex strings
there, since JSON's numbers end at 2^53.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.past import Past
from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.inference.draw_body import (
    NOBODYS_LAYER,
    Draw,
    draw_body,
    draw_untrusted,
    plain_body,
    plain_untrusted,
)
from p2pnode.inference.fields import Fields, hex_bytes, whole_number
from p2pnode.inference.prefix_body import (
    Keep,
    Names,
    keep_body,
    keep_untrusted,
    names_body,
    names_untrusted,
)
from p2pnode.inference.terms import LADDER, Terms
from p2pnode.sansio import NodeId

_MOST_RUNGS = 16

OVERFLOW: Final = "overflow"
"""Code of a failure that a node tells itself alone: its engine gives no numbers, and will not."""

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
        out_dtype: ``f32``; or ``f16`` where the requester chose to round, but not at a cut that the
            undisturbed chain did not have, where rounding would change the answer.
        sampling: How to draw tokens; only for the last stage, None for the others.
        sample_from: First position whose token is wanted; only for the last stage.
        terms: What it may send coarser than f16; None for nothing. A stage that does not know of
            terms sends ``out_dtype``.
        root: Of the model that the requester means, 32 bytes: the 32 bits of the space in every
            frame may be those of two models. None where it does not say.
        past: The tokens before ``sample_from``, where the sampling depends on them; else None.
        unknown: What of the sampling this node cannot read: nobody may pass over it in silence.
        prefix: What the session's beginnings are called, of which the stage may hold one; None
            where it asks for none.
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
    past: Past | None = None
    unknown: str = ""
    prefix: Names | None = None

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
        arrived: How many positions came in, with those of a batch that is not complete; None where
            it does not say.
    """

    session: int
    epoch: int
    leg: int
    next_position: int
    computed: int | None = None
    arrived: int | None = None


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
    SAMPLING = "sampling"
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
    """An admitted stage cannot go on, or sees that ``culprit`` cannot; sent to the requester.

    ``code`` is ``sampling`` where what was asked for cannot be drawn, by anybody perhaps; else "",
    and what a node tells itself alone (:data:`OVERFLOW`).
    """

    session: int
    epoch: int
    leg: int
    culprit: NodeId
    reason: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Close:
    """Free the session's stages of ``epoch`` and before.

    Messages may overtake each other: a stage opened anew for a later epoch stays.

    Attributes:
        session: The requester's number of the session.
        epoch: The newest that is over.
        keep: For legs of which the cache may serve again, what its boundaries are called.
    """

    session: int
    epoch: int
    keep: Keep = ()


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
                "sampling": None,
                "sample_from": message.sample_from,
            }
            if message.sampling is not None:
                body |= _sampling_body(message.sampling, message)
            if message.terms is not None:
                body["coding"] = _terms_body(message.terms)
            if message.root is not None:
                body["root"] = message.root.hex()
            if message.prefix is not None:
                body["prefix"] = names_body(message.prefix)
        case Opened(next_position=position, computed=computed, arrived=arrived):
            body["position"] = position
            if computed is not None:
                body["computed"] = computed
            if arrived is not None and arrived != position:
                body["arrived"] = arrived
        case Resume(position=position):
            body["position"] = position
        case Refused(code=code, reason=reason):
            body |= {"code": code, "reason": reason[:500]}
        case Failed(culprit=culprit, reason=reason, code=code):
            body |= {"culprit": culprit.hex(), "reason": reason[:500]}
            if code:
                body["code"] = code
        case Close(keep=keep) if keep:
            body["keep"] = keep_body(keep)
    return {"method": _METHODS[type(message)], **body}


def from_body_untrusted(body: Mapping[str, object]) -> Control | None:
    """Parse a Sync body; None when its method is not one of a session's.

    Raises:
        RemoteProtocolError: The method is a session's, the rest is not.
    """
    parse = _PARSERS.get(str(body.get("method")))
    return None if parse is None else parse(Fields(body))


def _parse_open(fields: Fields) -> Open:
    dtype = fields.text("out")
    if dtype not in {"f16", "f32"}:
        raise RemoteProtocolError(f"unknown activation type {dtype!r}")
    positions = fields.number("positions", MAX_CONTEXT + 1)
    sample_from = fields.number("sample_from", MAX_CONTEXT + 1)
    layers, draw = _draw_untrusted(fields, sample_from)
    return Open(
        *_identity(fields),
        layers=layers,
        positions=positions,
        upstream=_edge(fields, "up"),
        downstream=_edge(fields, "down"),
        out_dtype=dtype,
        sampling=None if draw is None else draw.sampling,
        sample_from=sample_from,
        terms=_terms(fields),
        root=None if fields.value("root") is None else hex_bytes(fields.value("root"), 32, "root"),
        past=None if draw is None else draw.past,
        unknown="" if draw is None else draw.unknown,
        prefix=_prefix(fields),
    )


def _prefix(fields: Fields) -> Names | None:
    inner = fields.inner("prefix")
    return None if inner is None else names_untrusted(inner, MAX_CONTEXT + 1)


def _parse_close(fields: Fields) -> Close:
    keep = keep_untrusted(fields.value("keep"), MAX_CONTEXT + 1) if "keep" in fields else ()
    return Close(fields.session(), fields.number("epoch", 1 << 32), keep)


def _draw_untrusted(fields: Fields, sample_from: int) -> tuple[range, Draw | None]:
    """Return the layers to run, and how to draw after them."""
    first, stop = (whole_number(end, "layers", 1 << 16) for end in fields.pair("layers"))
    plain = fields.inner("sampling")
    draw = None if plain is None else Draw(plain_untrusted(plain))
    more = fields.inner("draw")
    if more is not None:
        stop, draw = draw_untrusted(more, sample_from)
    layers = range(first, stop)
    if not layers:
        raise RemoteProtocolError("a stage runs at least one layer")
    return layers, draw


def _edge(fields: Fields, key: str) -> Edge:
    peer, stream = fields.pair(key)
    return Edge(NodeId(hex_bytes(peer, 32, key)), whole_number(stream, key, 1 << 32))


def _terms(fields: Fields) -> Terms | None:
    inner = fields.inner("coding")
    if inner is None:
        return None
    names = inner.value("rungs")
    if not isinstance(names, list) or len(names) > _MOST_RUNGS:
        raise RemoteProtocolError("rungs are no short list")
    try:
        return Terms(
            mode=inner.text("mode"),
            rungs=frozenset(rung for rung in LADDER if rung in names),  # others are news
            kl=inner.real("kl"),
            calibration=int.from_bytes(
                hex_bytes(inner.value("calibration"), 4, "calibration"), "big"
            ),
        )
    except LocalProtocolError as error:
        raise RemoteProtocolError(f"impossible terms: {error}") from error


def _identity(fields: Fields) -> tuple[int, int, int]:
    return fields.session(), fields.number("epoch", 1 << 32), fields.number("leg", 1 << 32)


_METHODS: dict[type[Control], str] = {
    Open: "x-open",
    Opened: "x-opened",
    Refused: "x-refused",
    Resume: "x-resume",
    Failed: "x-failed",
    Close: "x-close",
}

_PARSERS: dict[str, Callable[[Fields], Control]] = {
    "x-open": _parse_open,
    "x-opened": lambda fields: Opened(
        *_identity(fields),
        fields.number("position", MAX_CONTEXT + 1),
        fields.optional_number("computed", MAX_CONTEXT + 1),
        fields.optional_number("arrived", MAX_CONTEXT + 1),
    ),
    "x-refused": lambda fields: Refused(*_identity(fields), fields.text("code"), fields.reason()),
    "x-resume": lambda fields: Resume(
        *_identity(fields), fields.number("position", MAX_CONTEXT + 1)
    ),
    "x-failed": lambda fields: Failed(
        *_identity(fields),
        fields.node("culprit"),
        fields.reason(),
        fields.text("code") if "code" in fields else "",
    ),
    "x-close": _parse_close,
}


def _terms_body(terms: Terms) -> dict[str, object]:
    return {
        "mode": terms.mode,
        "rungs": [str(rung) for rung in LADDER if rung in terms.rungs],
        "kl": terms.kl,
        "calibration": f"{terms.calibration:08x}",
    }


def _sampling_body(sampling: Sampling, order: Open) -> dict[str, object]:
    """Return how to draw; where that is news to older stages, so that those refuse the order."""
    if sampling.is_plain:
        return {"sampling": plain_body(sampling)}
    draw = draw_body(Draw(sampling, order.past), order.layers.stop)
    return {"layers": [order.layers.start, NOBODYS_LAYER], "draw": draw}
