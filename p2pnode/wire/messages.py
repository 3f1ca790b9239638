"""The five messages: what a frame's slices mean.

A Think carries hidden states, a Cache keys and values, an Ask a question to whoever knows, a
Critique what two answers disagree on, and a Sync a JSON object. HEART, HEAD and TAIL frames
are no messages; :mod:`p2pnode.wire.vstream` reads those.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypedDict

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.bounded_json import dump_json, load_json_untrusted
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Frame, MessageType, Modality, Slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What all five have; see :class:`~p2pnode.wire.vframe.Frame`."""

    stream_id: int
    frame_seq: int
    space_hash32: int
    modality: Modality = Modality.TEXT

    def _frame(self, kind: MessageType, *slices: Slice) -> Frame:
        return Frame(kind, self.stream_id, self.frame_seq, self.space_hash32, self.modality, slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Think(Message):
    """Hidden states between two runs of layers.

    Attributes:
        hidden: A tensor [tokens, d_model] and the auxiliary slices of its coding, as
            :mod:`p2pnode.wire.tensor` reads and writes them.
    """

    hidden: tuple[Slice, ...]

    def __post_init__(self) -> None:
        if not self.hidden:
            raise LocalProtocolError("a Think has at least one slice")

    def to_frame(self) -> Frame:
        return self._frame(MessageType.THINK, *self.hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache(Message):
    """Keys and values of attention.

    Attributes:
        tensors: For each layer its keys and its values [tokens, kv_heads, head_dim], each
            followed by the auxiliary slices of its coding.
    """

    tensors: tuple[Slice, ...]

    def __post_init__(self) -> None:
        if not self.tensors:
            raise LocalProtocolError("a Cache has at least one slice")

    def to_frame(self) -> Frame:
        return self._frame(MessageType.CACHE, *self.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(Message):
    """A question to whoever can answer it.

    Attributes:
        embedding: The question's embedding, a vector and the auxiliary slices of its coding.
        context: The question in words.
    """

    embedding: tuple[Slice, ...]
    context: str

    def __post_init__(self) -> None:
        if not self.embedding:
            raise LocalProtocolError("an Ask has an embedding")

    def to_frame(self) -> Frame:
        return self._frame(MessageType.ASK, *self.embedding, byte_slice(self.context.encode()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Critique(Message):
    """Where two answers part.

    Attributes:
        divergence: A number per dimension, F16 or I8.
        mask: Which dimensions count, I8 of the divergence's shape.
        explanation: A JSON object in words.
    """

    divergence: Slice
    mask: Slice | None = None
    explanation: Mapping[str, object] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.divergence.dtype not in (DType.F16, DType.I8):
            raise LocalProtocolError("a divergence is F16 or I8")
        if self.mask is None and self.explanation is None:
            raise LocalProtocolError("a Critique has a mask or an explanation")
        if self.mask is not None:
            if self.mask.dtype != DType.I8 or self.mask.shape != self.divergence.shape:
                raise LocalProtocolError("a mask is I8, of the divergence's shape")
            if self.explanation is None and _is_json_object(self.mask):
                raise LocalProtocolError("this mask alone would read as an explanation")

    def to_frame(self) -> Frame:
        slices = [self.divergence]
        if self.mask is not None:
            slices.append(self.mask)
        if self.explanation is not None:
            slices.append(byte_slice(dump_json(self.explanation)))
        return self._frame(MessageType.CRITIQUE, *slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync(Message):
    """A JSON object: ``ping``, ``capability``, ``error``, or what two sides agreed on.

    Attributes:
        body: The object; its ``method`` says which. Unknown keys are kept.
    """

    body: Mapping[str, object] = field(hash=False)

    def to_frame(self) -> Frame:
        return self._frame(MessageType.SYNC, byte_slice(dump_json(self.body)))


@dataclass(frozen=True, slots=True)
class SyncError:
    """The body of a Sync that refuses something.

    Attributes:
        code: A word for programs, such as ``SPACE_MISMATCH``.
        message: A sentence for people.
        expected: What would have been accepted; any JSON value.
        got: What came instead.
    """

    code: str
    message: str
    expected: Any = None
    got: Any = None

    def to_body(self) -> dict[str, object]:
        return {
            "method": "error",
            "code": self.code,
            "message": self.message,
            "expected": self.expected,
            "got": self.got,
        }

    @classmethod
    def from_body_untrusted(cls, body: Mapping[str, object]) -> "SyncError":
        """Read a Sync body.

        Raises:
            RemoteProtocolError: It is no error, or its code or message is no string.
        """
        code, message = body.get("code"), body.get("message", "")
        if body.get("method") != "error" or not isinstance(code, str):
            raise RemoteProtocolError("a Sync body that is no error")
        if not isinstance(message, str):
            raise RemoteProtocolError("an error whose message is no string")
        return cls(code, message, body.get("expected"), body.get("got"))


AnyMessage: TypeAlias = Think | Cache | Ask | Critique | Sync


def ping_body(ts: int) -> dict[str, object]:
    """Return the body of a Sync ping; ``ts`` is in whole seconds since 1970."""
    return {"method": "ping", "ts": ts}


def sync_frame(
    body: Mapping[str, object], *, stream_id: int, frame_seq: int, space_hash32: int
) -> Frame:
    """Return the Sync frame that carries ``body``.

    Raises:
        LocalProtocolError: The body is no JSON, or too large.
    """
    return Sync(
        stream_id=stream_id, frame_seq=frame_seq, space_hash32=space_hash32, body=body
    ).to_frame()


def parse_sync_untrusted(frame: Frame) -> dict[str, object]:
    """Return the JSON object of a Sync frame.

    Raises:
        RemoteProtocolError: It is no Sync, or not one I8 slice of a small JSON object.
    """
    if frame.type is not MessageType.SYNC or len(frame.slices) != 1 or frame.strong_tail:
        raise RemoteProtocolError("a Sync is one slice of JSON")
    return load_json_untrusted(_bytes_untrusted(frame.slices[0]))


def parse_message_untrusted(frame: Frame) -> AnyMessage:
    """Return what a frame says.

    Raises:
        RemoteProtocolError: Its slices are not what its type asks for, or it is a HEART or a
            TAIL.
    """
    if not frame.slices or frame.strong_tail:
        raise RemoteProtocolError("a HEART or a TAIL is no message")
    try:
        return _READERS[frame.type](frame)
    except LocalProtocolError as error:
        raise RemoteProtocolError(str(error)) from error


def byte_slice(data: bytes) -> Slice:
    """Return an I8 slice that holds bytes: JSON, text, hashes."""
    return Slice(DType.I8, (len(data),), data)


class _Envelope(TypedDict):
    stream_id: int
    frame_seq: int
    space_hash32: int
    modality: Modality


def _envelope(frame: Frame) -> _Envelope:
    return {
        "stream_id": frame.stream_id,
        "frame_seq": frame.frame_seq,
        "space_hash32": frame.space_hash32,
        "modality": frame.modality,
    }


def _think_untrusted(frame: Frame) -> Think:
    return Think(**_envelope(frame), hidden=frame.slices)


def _cache_untrusted(frame: Frame) -> Cache:
    return Cache(**_envelope(frame), tensors=frame.slices)


def _ask_untrusted(frame: Frame) -> Ask:
    try:
        context = bytes(_bytes_untrusted(frame.slices[-1])).decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("an Ask whose context is not UTF-8") from error
    return Ask(**_envelope(frame), embedding=frame.slices[:-1], context=context)


def _sync_untrusted(frame: Frame) -> Sync:
    return Sync(**_envelope(frame), body=parse_sync_untrusted(frame))


def _critique_untrusted(frame: Frame) -> Critique:
    mask, words = _mask_and_words(frame.slices)
    return Critique(
        **_envelope(frame),
        divergence=frame.slices[0],
        mask=mask,
        explanation=None if words is None else load_json_untrusted(_bytes_untrusted(words)),
    )


def _mask_and_words(slices: tuple[Slice, ...]) -> tuple[Slice | None, Slice | None]:
    if len(slices) == 3:
        return slices[1], slices[2]
    if len(slices) != 2:
        raise RemoteProtocolError(f"a Critique of {len(slices)} slices")
    second = slices[1]
    if second.shape == slices[0].shape and not _is_json_object(second):
        return second, None
    return None, second


def _is_json_object(piece: Slice) -> bool:
    try:
        load_json_untrusted(_bytes_untrusted(piece))
    except RemoteProtocolError:
        return False
    return True


def _bytes_untrusted(piece: Slice) -> bytes | memoryview:
    if piece.dtype != DType.I8:
        raise RemoteProtocolError(f"bytes travel as I8, not as dtype 0x{piece.dtype:02x}")
    return piece.payload


_READERS: dict[MessageType, Callable[[Frame], AnyMessage]] = {
    MessageType.THINK: _think_untrusted,
    MessageType.CACHE: _cache_untrusted,
    MessageType.ASK: _ask_untrusted,
    MessageType.SYNC: _sync_untrusted,
    MessageType.CRITIQUE: _critique_untrusted,
}
