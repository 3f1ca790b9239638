"""What a well-formed frame says, in words: which slice is what, and which message it makes.

The other half of :mod:`p2pnode.wire.explain`, which finds the fields and judges their form.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.dtypes import REGISTRY, DType, dtype_label
from p2pnode.wire.layout import HEAD, TAIL, Layout, fixed_offsets
from p2pnode.wire.messages import (
    Ask,
    Critique,
    Sync,
    parse_message_untrusted,
)
from p2pnode.wire.tensor import TENSOR_DTYPES, group_slices, slices_to_tensor_untrusted
from p2pnode.wire.vframe import Frame, MessageType, Slice
from p2pnode.wire.vstream import is_head


@dataclass(frozen=True, slots=True)
class Detail:
    """A field inside a payload; ``offset`` counts from the payload's start."""

    name: str
    offset: int
    size: int
    value: object


@dataclass(frozen=True, slots=True)
class Role:
    """What one slice is.

    Attributes:
        words: Such as ``scales of slice 0, one for 32 values``.
        details: The fields inside its payload, where it has some.
    """

    words: str
    details: tuple[Detail, ...] = ()


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a frame says as a whole.

    Attributes:
        words: One sentence, such as ``a Sync: ping``.
        problem: Why it is no such message though the frame is well-formed; empty if it is.
        says: Its JSON or its text, or None.
    """

    words: str
    problem: str = ""
    says: object = None


def slice_roles(frame: Frame) -> list[Role]:
    """Return what each slice is, in order."""
    slices = frame.slices
    if not slices:
        return []
    if frame.strong_tail:
        return [Role("TAIL: the hash of the stream's whole payload", _details(TAIL, slices[0]))]
    if is_head(frame):
        return [Role("HEAD: what the stream will be", _details(HEAD, slices[0]))]
    if frame.type is MessageType.SYNC:
        return [Role("JSON") for _ in slices]
    if frame.type is MessageType.ASK:
        return [*_tensor_roles(slices[:-1], ["embedding"]), *(Role("context") for _ in slices[-1:])]
    if frame.type is MessageType.CRITIQUE:
        return _critique_roles(frame)
    if frame.type is MessageType.THINK:
        return _think_roles(slices)
    count = len(slices)
    names = (f"{what} of layer {layer}" for layer in range(count) for what in ("keys", "values"))
    return _tensor_roles(slices, list(names))


def frame_meaning(frame: Frame) -> Meaning:
    """Return what the frame says, and where it says nothing that is right, why."""
    kind = frame.type.name.capitalize()
    if not frame.slices:
        return Meaning(f"a HEART of a {kind} stream: it is alive and has nothing to say yet")
    if frame.strong_tail or is_head(frame):
        part = "TAIL" if frame.strong_tail else "HEAD"
        return Meaning(f"the {part} of a {kind} stream")
    try:
        message = parse_message_untrusted(frame)
        if isinstance(message, Sync):
            method = message.body.get("method")
            return Meaning(f"a Sync: {method}", says=message.body)
        if isinstance(message, Ask):
            words = "; ".join(_tensors_untrusted(message.embedding))
            return Meaning(f"an Ask: embedding {words}, and its context", says=message.context)
        if isinstance(message, Critique):
            words = "; ".join(_tensors_untrusted((message.divergence,)))
            return Meaning(f"a Critique: divergence {words}", says=message.explanation)
        words = "; ".join(_tensors_untrusted(frame.slices))
        return Meaning(f"a {kind}: {words}")
    except RemoteProtocolError as error:
        return Meaning(f"a {kind} that says nothing", str(error))


def _details(layout: Layout, piece: Slice) -> tuple[Detail, ...]:
    raw = bytes(piece.payload)
    return tuple(
        Detail(part.name, at, part.unit, _value(part.name, raw[at : at + part.unit]))
        for part, at in fixed_offsets(layout)
    )


def _value(name: str, raw: bytes) -> object:
    if name == "md5":
        return raw.hex()
    number = int.from_bytes(raw, "little")
    if name == "xxh3_64":
        return f"0x{number:016x}"
    return f"{number} bytes" if name == "length" else number


def _critique_roles(frame: Frame) -> list[Role]:
    try:
        message = parse_message_untrusted(frame)
    except RemoteProtocolError:
        return [Role("") for _ in frame.slices]
    names = ["divergence"]
    if isinstance(message, Critique):
        names += ["mask"] if message.mask is not None else []
        names += ["explanation, JSON"] if message.explanation is not None else []
    return [Role(name) for name in names]


def _think_roles(slices: Sequence[Slice]) -> list[Role]:
    last = slices[-1]
    if len(slices) < 2 or last.dtype != DType.I8 or last.shape not in {(8,), (16,)}:
        return _tensor_roles(slices, ["hidden states"])
    numbers = memoryview(last.payload).cast("B")
    meta = tuple(
        Detail(name, at, 4, int.from_bytes(numbers[at : at + 4], "little"))
        for name, at in zip(_SESSION_META, range(0, len(numbers), 4), strict=False)
    )
    tokens = slices[0].dtype == DType.I8 and slices[0].shape[1:] == (4,) and len(slices) == 2
    rows = _tensor_roles(slices[:-1], ["token ids, or I8 rows" if tokens else "hidden states"])
    return [*rows, Role("meta data of a session's activation, in a session", meta)]


def _tensor_roles(slices: Sequence[Slice], names: Sequence[str]) -> list[Role]:
    roles: list[Role] = []
    for index, group in enumerate(group_slices(slices)):
        first = len(roles)
        name = names[index] if index < len(names) else "a further tensor"
        roles.append(Role(name))
        roles += [Role(words) for words in _auxiliary(group, first)]
    return roles


def _auxiliary(group: Sequence[Slice], first: int) -> Iterator[str]:
    main = group[0]
    info = REGISTRY.get(main.dtype)
    names = () if info is None else info.auxiliary
    for index, piece in enumerate(group[1:]):
        name = names[index] if index < len(names) else "auxiliary data"
        words = f"{name} of slice {first}"
        if piece.dtype == DType.F16 and main.shape and piece.shape and piece.shape[-1]:
            words += f", one for {-(-main.shape[-1] // piece.shape[-1])} values"
        yield words


def _tensors_untrusted(slices: Sequence[Slice]) -> Iterator[str]:
    """Describe each tensor; a coding that does not read is refused."""
    groups = group_slices(slices)
    if len(groups) > _MOST_TENSORS:
        yield f"{len(groups)} tensors, of which the first"
    for group in groups[:_MOST_TENSORS]:
        main = group[0]
        words = f"{dtype_label(main.dtype)} {list(main.shape)}"
        if main.dtype not in TENSOR_DTYPES or (main.dtype == DType.I8 and len(group) == 1):
            yield words
            continue
        values = slices_to_tensor_untrusted(group)
        finite = values[np.isfinite(values)]
        if finite.size:
            words += f" from {finite.min():.4g} to {finite.max():.4g}"
        if finite.size < values.size:
            words += f", {values.size - finite.size} of them no finite numbers"
        yield words


_MOST_TENSORS = 64  # a sparse one of a few bytes may stand for 16 MiB, and a frame has many
# As docs/protocol/session-control.md lays it out; the last two where states are coded.
_SESSION_META = ("end", "compute_us", "micronats", "codings")
