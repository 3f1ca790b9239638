"""The published test vectors: a frame of every kind, and what each one says.

Made from formulas alone, so that every run makes the same. Only what zstd compresses may differ
in its bytes, from one version of the library to the next; it inflates to the same.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xxhash

from p2pnode.testing.refused_frames import refused_entries
from p2pnode.testing.state_vectors import (
    calibration_entry,
    dictionary_entry,
    state_entry,
    state_vectors,
)
from p2pnode.wire.agreement import answer_proposal_untrusted, proposal_frame
from p2pnode.wire.capability import Capability, negotiate, space_hash32, space_mismatch
from p2pnode.wire.dtypes import DType
from p2pnode.wire.frame_json import frame_to_json, json_to_frame
from p2pnode.wire.messages import (
    Ask,
    Cache,
    Critique,
    SyncError,
    Think,
    byte_slice,
    ping_body,
    sync_frame,
)
from p2pnode.wire.seal import KEY_SIZE, SALT_SIZE, FrameOpener, FrameSealer
from p2pnode.wire.tensor import (
    F32Array,
    slices_to_tensor_untrusted,
    tensor_to_slices,
)
from p2pnode.wire.vframe import Frame, MessageType, Modality, Slice, encode_frame
from p2pnode.wire.vstream import write_stream

SPACE = space_hash32("demo", "llama", "00")
KEY, SALT = bytes(range(KEY_SIZE)), bytes(range(0xA0, 0xA0 + SALT_SIZE))
OURS = Capability(64, "demo", SPACE, dtypes=("f16", "i8", "q4", "sparse", "f32"))


@dataclass(frozen=True, slots=True)
class Vector:
    """A frame to publish; ``sealed`` under :data:`KEY` and :data:`SALT`."""

    name: str
    frame: Frame
    note: str
    compress: bool = False
    sealed: bool = False

    def entry(self) -> dict[str, Any]:
        """Return the frame as JSON, and the key and salt where it takes them to open it."""
        sealer = FrameSealer(KEY, SALT) if self.sealed else None
        data = encode_frame(self.frame, compress=self.compress, sealer=sealer)
        opener = FrameOpener(KEY, SALT) if self.sealed else None
        entry = frame_to_json(data, name=self.name, note=self.note, opener=opener)
        return {**entry, "key": KEY.hex(), "salt": SALT.hex()} if self.sealed else entry


def wire_vectors() -> dict[str, Any]:
    """Return everything that is published, ready for JSON."""
    vectors = [*_tensor_vectors(), *_wrapped_vectors(), *_message_vectors(), *_sync_vectors()]
    states = list(state_vectors(SPACE))
    vectors += [
        Vector(one.name, Frame(MessageType.THINK, 11, number, SPACE, slices=(one.piece,)), one.note)
        for number, one in enumerate(states, start=1)
    ]
    streams = [_stream("whole", 40, direction=1), _stream("broken", 41, direction=0)]
    entries = [vector.entry() for vector in vectors]
    entries.append(_raw_under_zstd())
    entries += [vector.entry() for _, parts in streams for vector in parts]
    return {
        "frames": entries,
        "tensors": [_values(vector) for vector in _tensor_vectors()],
        "calibrations": [calibration_entry(SPACE)],
        "dictionaries": [dictionary_entry()],
        "states": [state_entry(one, SPACE) for one in states],
        "streams": [about for about, _ in streams],
        "negotiations": [_negotiation(name, theirs) for name, theirs in _proposals()],
        "space_hash32": [_space("demo", "llama", "00"), _space("пространство", "gemma3", "a:b")],
        "refused": refused_entries(),
    }


def wire_vectors_text() -> str:
    """Return the vectors as the text of their file: one entry a line, so that changes show."""
    parts = []
    for key, entries in wire_vectors().items():
        lines = ",\n".join(f"  {json.dumps(entry, ensure_ascii=False)}" for entry in entries)
        parts.append(f" {json.dumps(key)}: [\n{lines}\n ]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


# Tensors


def some_rows(rows: int = 2, width: int = 64) -> F32Array:
    """Return values from -4 to 3.875 in eighths, which half precision holds exactly."""
    steps = np.arange(rows * width) * 37 % 64  # [rows * width]
    return ((steps.reshape(rows, width) - 32) / 8).astype(np.float32)


def _tensor_vectors() -> Iterator[Vector]:
    rows = some_rows()
    number = 0

    def think(name: str, slices: Sequence[Slice], note: str, **changes: Any) -> Vector:
        nonlocal number
        number += 1
        frame = Frame(MessageType.THINK, 10, number, SPACE, slices=tuple(slices))
        return Vector(name, replace(frame, **changes), note)

    for dtype in (DType.F16, DType.F32, DType.BF16):
        yield think(f"tensor-{dtype.name.lower()}", tensor_to_slices(rows, dtype), "no more slices")
    for dtype in (DType.I8, DType.Q4, DType.Q2):
        name, slices = dtype.name.lower(), tensor_to_slices(rows, dtype, group=32)
        yield think(f"tensor-{name}", slices[:1], "codes alone: the scale is 1")
        centred = (*slices[:1], *tensor_to_slices(some_rows(2, 2), DType.F16))
        yield think(f"tensor-{name}-scales", centred, "one scale for 32 values")
        minima = (*centred, *tensor_to_slices(rows[:, 1::32], DType.F16))
        yield think(f"tensor-{name}-minima", minima, "scales, then minima")
    odd = np.arange(15, dtype=np.float32).reshape(3, 5)
    for dtype in (DType.Q4, DType.Q2):
        slices = tensor_to_slices(odd, dtype, group=2)
        name = f"tensor-{dtype.name.lower()}-odd"
        yield think(name, slices, "15 codes, the last byte not full; the last group is one value")
    sparse = np.zeros((3, 5), np.float32)
    sparse[0, 4], sparse[2, 0], sparse[2, 4] = 1, -2.5, 65504
    yield think("tensor-sparse", tensor_to_slices(sparse, DType.COO), "dense shape [3, 5]")
    nothing = np.zeros((3, 5), np.float32)
    yield think("tensor-sparse-empty", tensor_to_slices(nothing, DType.COO), "no value at all")
    scalar = Slice(DType.F16, (), np.float16(1.5).tobytes())
    yield think("tensor-scalar", (scalar,), "no dims: one element")
    yield think("tensor-empty", tensor_to_slices(rows[:0]), "dims [0, 64]: no element")
    for modality in Modality:
        piece = tensor_to_slices(rows[:1, :4])
        yield think(f"modality-{modality.name.lower()}", piece, "", modality=modality)


def _values(vector: Vector) -> dict[str, Any]:
    array = slices_to_tensor_untrusted(vector.frame.slices)
    return {
        "frame": vector.name,
        "shape": list(array.shape),
        "values": [float(value) for value in array.reshape(-1)],
    }


# Bodies that are wrapped


def _wrapped_vectors() -> Iterator[Vector]:
    zeros = (Slice(DType.F16, (1, 2048), bytes(4096)),)
    rows = tensor_to_slices(some_rows(8, 64))
    think = Frame(MessageType.THINK, 20, 1, SPACE, slices=rows)
    wide = replace(think, stream_id=19, slices=zeros)
    yield Vector("think-2048", wide, "4,143 bytes")
    yield Vector("zstd-zeros-2048", replace(wide, frame_seq=2), "4,096 zeros", compress=True)
    yield Vector("zstd", think, "the body is one zstd frame", compress=True)
    two = replace(think, frame_seq=2, slices=(*rows, byte_slice(b"meta" * 8)))
    yield Vector("zstd-two-slices", two, "both slices in one zstd frame", compress=True)
    yield Vector("sealed", replace(think, stream_id=21), "16 bytes longer", sealed=True)
    both = replace(think, stream_id=22, frame_seq=2**64 - 1)
    yield Vector("zstd-sealed", both, "first zstd, then the seal", compress=True, sealed=True)
    heart = Frame(MessageType.THINK, 23, 7, SPACE)
    yield Vector("heart", heart, "33 bytes, no slice")
    yield Vector("heart-sealed", heart, "an empty body sealed is its MAC", sealed=True)


def _raw_under_zstd() -> dict[str, Any]:
    think = Frame(MessageType.THINK, 24, 1, SPACE, slices=tensor_to_slices(some_rows(1, 8)))
    note = "the ZSTD flag over a raw body: readers take it, writers do not write it"
    entry = frame_to_json(encode_frame(think), name="zstd-flag-raw-body", note=note)
    entry["flags"] = 1
    return {**entry, "frame": json_to_frame(entry).hex()}


# Messages


def _message_vectors() -> Iterator[Vector]:
    rows = some_rows(1, 8)
    halves = tensor_to_slices(rows)
    envelope: dict[str, Any] = {"stream_id": 30, "space_hash32": SPACE}
    yield Vector("think", Think(**envelope, frame_seq=1, hidden=halves).to_frame(), "")
    ids = Slice(DType.I8, (2, 4), b"\x05\0\0\0\x06\0\0\0")
    meta = byte_slice(b"\x2a\0\0\0\0\0\0\0")
    activation = Think(**envelope, frame_seq=41, hidden=(ids, meta)).to_frame()
    yield Vector("think-session", activation, "token ids 5 and 6 at positions 40 and 41")
    kv = some_rows(3, 32).reshape(3, 4, 8)
    tensors = (*tensor_to_slices(kv), *tensor_to_slices(kv, DType.Q4, group=8))
    cache = Cache(**envelope, frame_seq=2, tensors=tensors).to_frame()
    yield Vector("cache", cache, "keys in F16; values in Q4 with scales and minima")
    ask = Ask(**envelope, frame_seq=3, embedding=halves, context="кто знает?").to_frame()
    yield Vector("ask", ask, "")
    divergence = halves[0]
    mask = Slice(DType.I8, (1, 8), bytes([1, 0] * 4))
    critiques: list[tuple[str, dict[str, Any]]] = [
        ("critique-mask", {"mask": mask}),
        ("critique-explanation", {"explanation": {"note": "dims 3 and 5"}}),
        ("critique-both", {"mask": mask, "explanation": {}}),
    ]
    for number, (name, parts) in enumerate(critiques, start=4):
        critique = Critique(**envelope, frame_seq=number, divergence=divergence, **parts)
        yield Vector(name, critique.to_frame(), "")


def _sync_vectors() -> Iterator[Vector]:
    ping = sync_frame(ping_body(1730616000), stream_id=31, frame_seq=0, space_hash32=SPACE)
    yield Vector("sync-ping", ping, "")
    for number, (name, theirs) in enumerate(_proposals()):
        proposal = proposal_frame(theirs, stream_id=32 + number)
        yield Vector(f"proposal-{name}", proposal, "a capability at frame_seq 0")
        answer = answer_proposal_untrusted(proposal, OURS)
        yield Vector(f"answer-{name}", answer, "its answer, at frame_seq 1")
    refusal = space_mismatch(SPACE, 7).to_body()
    error = sync_frame(refusal, stream_id=36, frame_seq=0, space_hash32=0)
    yield Vector("space-mismatch", error, "the answer to a frame of space 7")
    kept = {"method": "ping", "ts": 0, "x-new": {"kept": [True, None, "я"]}}
    extra = sync_frame(kept, stream_id=37, frame_seq=0, space_hash32=SPACE)
    yield Vector("sync-unknown-keys", extra, "unknown keys are kept")


def _proposals() -> list[tuple[str, Capability]]:
    wider = replace(OURS, dtypes=("q2", "f32", "f16"), compress=("lz4", "zstd"), critique=False)
    return [
        ("granted", OURS),
        ("reduced", wider),
        ("another-space", replace(OURS, space_hash32=7)),
        ("another-width", replace(OURS, d_model=32)),
    ]


def _negotiation(name: str, theirs: Capability) -> dict[str, Any]:
    agreed = negotiate(OURS, theirs)
    bodies = {"ours": OURS.to_body(), "theirs": theirs.to_body(), "answer": agreed.to_body()}
    return {"name": name, **bodies, "refused": isinstance(agreed, SyncError)}


# Streams


def _stream(name: str, stream_id: int, *, direction: int) -> tuple[dict[str, Any], list[Vector]]:
    """A Cache stream with a HEART; a broken one ends in a TAIL that contradicts its HEAD."""
    batches = [tensor_to_slices(some_rows(2, 8)), (byte_slice(b"one"), byte_slice(b""))]
    head, first, second, tail = write_stream(
        batches,
        kind=MessageType.CACHE,
        stream_id=stream_id,
        space_hash32=SPACE,
        direction=direction,
    )
    heart = replace(second, slices=())
    frames = [head, first, heart, replace(second, frame_seq=3), replace(tail, frame_seq=4)]
    if name == "broken":
        frames[-1] = replace(frames[-1], slices=(byte_slice(bytes(8)),))
    labels = ("head", "batch-1", "heart", "batch-2", "tail")
    vectors = [
        Vector(f"stream-{name}-{label}", frame, "")
        for label, frame in zip(labels, frames, strict=True)
    ]
    payload = b"".join(bytes(piece.payload) for batch in batches for piece in batch)
    about = {
        "name": name,
        "frames": [vector.name for vector in vectors],
        "payload": payload.hex(),
        "length": len(payload),
        "md5": hashlib.md5(payload, usedforsecurity=False).hexdigest(),
        "xxh3_64": xxhash.xxh3_64_intdigest(payload),
        "direction": direction,
        "refused": name == "broken",
    }
    return about, vectors


def _space(space_id: str, arch: str, data_sig: str) -> dict[str, Any]:
    hashed = space_hash32(space_id, arch, data_sig)
    return {"space_id": space_id, "arch": arch, "data_sig": data_sig, "space_hash32": hashed}
